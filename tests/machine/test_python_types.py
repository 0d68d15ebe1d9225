"""Generated Python types: mypy --strict accepts correct use and rejects each typo."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from swapchart.machine import ChartError, read
from swapchart.machine.format.python_types import python_types

CHART = """
format: swapchart.chart/v1
name: Order
data: {amount: {values: [0, 50]}}
events:
  submit: {data: {value: [0, 50]}}
  hold: {}
  broke: {origin: activity, of: charge, on: error, data: {why: [a, b]}}
chart:
  states:
    draft:
      initial: true
      ignores: hold
      transitions: [{event: submit, target: paying, "on": {set: {amount: value}}}]
    paying:
      ignores: [submit, hold]
      invoke: {activity: charge, done: paid, error: draft, answers: {declined: draft}}
    paid: {final: true}
"""

USE = """
from collections.abc import Mapping
from order_types import Activities, ChargeAnswer, Instance, State, activities, typed


class Shop:
    async def charge(self, context: str, /) -> ChargeAnswer:
        if context:
            return "broke", {"why": "a"}  # bad: "broke", {"why": "c"} | "broek", {"why": "a"}
        return "declined"  # bad: "declind" | "submit"


shop: Activities[str] = Shop()
functions = activities(shop)


async def use(order: Instance) -> State:
    order.post("hold")  # bad: "hodl" | "declined"
    order.post("submit", {"value": 50})  # bad: "submit", {"value": 51} | "submit", {"valeu": 50}
    await order.wait_for("paid")  # bad: "payed"
    return "paying"  # bad: "paing"


later = typed(object())
"""


def uses() -> list[tuple[str, int]]:
    """Return the correct use, and each use with one mistake and its line; line 0 has none."""
    lines = USE.splitlines()
    found = [("\n".join(lines), 0)]
    for number, line in enumerate(lines):
        code, _, bad = line.partition("  # bad: ")
        for wrong in bad.split(" | ") if bad else ():
            head = re.match(r"\s*(return |await order\.\w+\(|order\.\w+\()", code)
            assert head is not None
            closing = ")" if head[0].endswith("(") else ""
            changed = [*lines[:number], f"{head[0]}{wrong}{closing}", *lines[number + 1 :]]
            found.append(("\n".join(changed), number + 1))
    return found


def test_types_accept_correct_use_and_reject_each_typo(tmp_path: Path) -> None:
    """Each misspelled state, event, field, value and answer is one error on its line."""
    (tmp_path / "order_types.py").write_text(python_types(read(CHART)))
    cases = uses()
    assert len(cases) == 11
    for index, (text, _) in enumerate(cases):
        (tmp_path / f"use{index}.py").write_text(text)

    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--cache-dir",
         str(tmp_path / "cache"), "."],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip

    wrong = {(m[1], int(m[2])) for m in re.finditer(r"(use\d+)\.py:(\d+): error", done.stdout)}
    assert wrong == {(f"use{index}", line) for index, (_, line) in enumerate(cases) if line}
    assert "order_types" not in done.stdout


def test_types_of_a_chart_without_events_can_be_imported(tmp_path: Path) -> None:
    """What a chart lacks is a type without values."""
    text = python_types(read("format: swapchart.chart/v1\nchart: {states: {a: {initial: true}}}"))
    scope: dict[str, object] = {}
    exec(compile(text, "types", "exec"), scope)

    assert scope["activities"](object()) == {}  # type: ignore[operator]


def test_types_of_names_that_are_no_identifiers_are_written() -> None:
    """Events with dots get class names without them."""
    text = python_types(
        read(
            "format: swapchart.chart/v1\nevents: {pay.now: {data: {by: ['a\"b']}}}\n"
            "chart: {states: {a: {initial: true, transitions: [{event: pay.now}]}}}"
        )
    )
    compile(text, "types", "exec")

    assert "class PayNowFields(TypedDict):" in text


def test_unreadable_chart_has_no_types() -> None:
    """Types are made of documents, so a broken one is refused before."""
    with pytest.raises(ChartError):
        read("format: swapchart.chart/v1")
