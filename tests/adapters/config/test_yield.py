"""Keys of `yield`: conditions, pools and errors."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from swapchart.adapters.config import Config, Problem
from swapchart.adapters.config.schema.memory import Size

Load = Callable[..., Config]
Check = Callable[..., list[Problem]]

MODELS = 'models: {m: {cmd: "serve --port ${PORT}", memory: 1GiB}}\n'


def test_yield_rules_are_read_with_their_defaults(load: Load) -> None:
    one, two = load(
        MODELS + "memory: auto\nyield:\n"
        "  - {pools: [GPU0], when: {process: blender}}\n"
        "  - pools: [GPU0, RAM]\n"
        '    when: {run: "test -e /run/keep-away"}\n'
        "    keep: 4GiB\n    quietFor: 5\n    comeBack: false\n    pinned: true\n"
    ).yields
    assert one.when.process == ("blender",)
    assert (one.keep, one.quiet_for, one.come_back, one.pinned) == (Size(bytes_=0), 60, True, False)
    assert two.when.argv == ("test", "-e", "/run/keep-away")
    assert (two.keep, two.quiet_for, two.come_back, two.pinned) == (
        Size(bytes_=4 << 30), 5, False, True,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("rule", "path"),
    [
        ("{pools: [GPU0], when: {}}", "yield.0.when"),
        ("{pools: [GPU0], when: {process: blender, others: 1GiB}}", "yield.0.when"),
        ("{pools: [GPU0], when: {process: []}}", "yield.0.when.process"),
        ('{pools: [GPU0], when: {run: ""}}', "yield.0.when.run"),
        ("{pools: [GPU0], when: {others: 3}}", "yield.0.when.others"),
        ("{pools: [], when: {process: blender}}", "yield.0.pools"),
        ("{pools: [GPU0], when: {process: blender}, keep: 4}", "yield.0.keep"),
        ("{pools: [NPU], when: {process: blender}}", "yield.0.pools.0"),
        ("{pools: [GPU0]}", "yield.0.when"),
    ],
)
def test_yield_rule_that_makes_no_sense_is_refused(check: Check, rule: str, path: str) -> None:
    problems = check(f"{MODELS}memory: auto\nyield: [{rule}]\n")
    assert [problem.path.replace("[", ".").replace("]", "") for problem in problems] == [path]


def test_yield_without_memory_is_a_warning(load: Load) -> None:
    (warning,) = load(f"{MODELS}yield: [{{pools: [GPU0], when: {{process: a}}}}]\n").warnings
    assert "without `memory: auto`" in warning.message
