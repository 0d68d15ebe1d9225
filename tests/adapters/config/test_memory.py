"""Keys of memory: sizes, pools and needs, and the errors of amounts that cannot be met."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from swapchart.adapters.config import Config, Problem
from swapchart.adapters.config.schema.memory import Size

GIB = 1 << 30
Load = Callable[..., Config]
Check = Callable[..., list[Problem]]

MODEL = '{cmd: "serve --port ${PORT}", memory: %s}'


def _models(*memories: str) -> str:
    return "models:\n" + "".join(f"  m{i}: {MODEL % text}\n" for i, text in enumerate(memories))


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("12GiB", Size(bytes_=12 * GIB)),
        ("1.5GiB", Size(bytes_=3 * GIB // 2)),
        ("512MiB", Size(bytes_=512 << 20)),
        ("12GB", Size(bytes_=12 * 10**9)),
        ("1 kB", Size(bytes_=1000)),
        ("2TiB", Size(bytes_=2 << 40)),
        ("80%", Size(share=0.8)),
        ("0", Size(bytes_=0)),
    ],
)
def test_memory_size_with_unit_is_read(load: Load, text: str, size: Size) -> None:
    assert load(_models(text)).models["m0"].memory.need == size


@pytest.mark.parametrize("text", ["12", "12.5", "12G", "GiB", "-1GiB", "101%", "true", "1e3MiB"])
def test_memory_size_without_unit_is_refused(check: Check, text: str) -> None:
    problems = check(_models(text))
    assert [problem.path for problem in problems] == ["models.m0.memory"]
    assert "expected" in problems[0].message


def test_memory_forms_of_a_model_are_read(load: Load) -> None:
    config = load(
        "memory: auto\n"
        + _models(
            "auto", "0", "{GPU0: 22GiB, RAM: 6GiB}",
            "{need: 14GiB, on: [GPU0, GPU1], place: [any, all], evictCost: 2}",
            "{need: 20GiB, on: GPU0, asleep: {GPU0: 1GiB, RAM: 18GiB}}", "{on: GPU1}",
        )
    )  # fmt: skip
    auto, free, pools, options, sleeper, place = (m.memory for m in config.models.values())

    assert config.memory.mode == "auto"
    assert auto.is_auto
    assert free.is_free
    assert pools.pools == {"GPU0": Size(bytes_=22 * GIB), "RAM": Size(bytes_=6 * GIB)}
    assert (options.on, options.place, options.evict_cost) == (("GPU0", "GPU1"), ("any", "all"), 2)
    assert sleeper.asleep == {"GPU0": Size(bytes_=GIB), "RAM": Size(bytes_=18 * GIB)}
    assert (place.is_auto, place.on) == (True, ("GPU1",))


@pytest.mark.parametrize(
    ("text", "mode"), [("off", "off"), ("observe", "observe"), ("auto", "auto"), ("{}", "auto")]
)
def test_memory_mode_is_read(load: Load, text: str, mode: str) -> None:
    assert load(f"memory: {text}\n" + _models("auto")).memory.mode == mode
    assert load(_models("auto")).memory.mode == "off"


def test_memory_residency_auto_is_the_time_of_the_last_start(load: Load) -> None:
    assert load("queue: {minResidency: auto}\n" + _models("auto")).queue.min_residency == math.inf


def test_memory_errors_are_reported_together_with_their_places(check: Check) -> None:
    text = """memory:
  pools:
    GPU0: {capacity: 24GiB, limit: 20GiB}
    NPU: {capacity: 16GiB, reserve: 25%}
models:
  a: {cmd: "x --port ${PORT}", memory: {GPU0: 22GiB, GPUX: 1GiB}}
  b: {cmd: "x --port ${PORT}", memory: {need: 14GiB, on: [GPU0, FOO]}}
  c: {cmd: "x --port ${PORT}", memory: 12}
  d: {cmd: "x --port ${PORT}", memory: {place: all, on: GPU0}}
  e: {cmd: "x --port ${PORT}", memory: {need: 1GiB, foo: 2}}
  f: {cmd: "x --port ${PORT}", memory: {GPU0: 12}}
  g: {cmd: "x --port ${PORT}", memory: {need: 21GiB, on: GPU0}}
  h: {cmd: "x --port ${PORT}", memory: {NPU: 90%}}
  i: {cmd: "x --port ${PORT}", pinned: true, memory: {GPU0: 11GiB}}
  j: {cmd: "x --port ${PORT}", pinned: true, memory: {GPU0: 11GiB}}
  k: {cmd: "x --port ${PORT}", memory: {asleep: {BAR: 1GiB}}}
  l: {cmd: "x --port ${PORT}", memory: {need: 1GiB, evictCost: 0}}
"""
    found = {problem.path: (problem.line, problem.message) for problem in check(text)}

    assert {path: line for path, (line, _) in found.items()} == {
        "memory.pools.GPU0": 3,
        "models.a.memory.GPU0": 6,
        "models.a.memory.GPUX": 6,
        "models.b.memory.on[1]": 7,
        "models.c.memory": 8,
        "models.d.memory": 9,
        "models.e.memory": 10,
        "models.f.memory.GPU0": 11,
        "models.g.memory.need": 12,
        "models.h.memory.NPU": 13,
        "models.k.memory.asleep.BAR": 16,
        "models.l.memory.evictCost": 17,
    }
    assert found["models.g.memory.need"][1] == "needs more than the 20.0 GiB that GPU0 can give"
    assert "known are RAM, GPU0, GPU1 and so on" in found["models.a.memory.GPUX"][1]
    assert "expected a size with a unit, such as 12GiB or 12MiB" in found["models.c.memory"][1]
    assert "the pinned models need 22.0 GiB of GPU0" in found["memory.pools.GPU0"][1]


def test_memory_broken_pools_cause_no_further_errors(check: Check) -> None:
    problems = check("memory: {pools: {NPU: {capacity: 16}}}\n" + _models("{NPU: 1GiB}"))
    assert [problem.path for problem in problems] == ["memory.pools.NPU.capacity"]


def test_memory_pool_of_ones_own_needs_a_capacity(check: Check) -> None:
    """A pool that nothing reads and that has no size would be no condition, without a word."""
    for text in ("{limit: 3GiB}", "{capacity: 50%}", "{}"):
        (problem,) = check(f"memory: {{pools: {{NPU: {text}}}}}\n" + _models("{NPU: 1GiB}"))
        assert problem.path == "memory.pools.NPU"
        assert "needs a `capacity` in bytes" in problem.message
    for text in (
        "NPU: {capacity: 3GiB}",
        "big: {device: GPU-aa}",
        "GPU1: {limit: 3GiB}",
        "RAM: {}",
    ):
        assert not check(f"memory: {{pools: {{{text}}}}}\n" + _models("1GiB"))


def test_memory_check_of_a_pool_is_split_and_needs_a_capacity(load: Load, check: Check) -> None:
    pool = "memory: {pools: {NPU: {capacity: 16GiB, check: \"xrt-free --unit 'a b'\"}}}\n"
    section = load(pool + _models("1GiB")).memory.pools["NPU"]
    assert section.check_argv == ("xrt-free", "--unit", "a b")
    for text, message in (
        ("{check: free}", "expected capacity"),
        ("{capacity: 50%, check: free}", "expected capacity"),
        ('{capacity: 1GiB, check: "free \'a"}', "unterminated quote"),
        ("{capacity: 1GiB, check: ' '}", "expected a command"),
    ):
        (problem,) = check(f"memory: {{pools: {{NPU: {text}}}}}\n" + _models("1GiB"))
        assert problem.path.startswith("memory.pools.NPU")
        assert message in problem.message


def test_gpu_placeholder_stays_in_a_command_with_memory(load: Load, check: Check) -> None:
    model = "models: {m: {cmd: 'serve ${PORT} -mg ${GPU} --all ${GPUS}'}}\n"
    argv = load("memory: auto\n" + model).models["m"].argv
    assert argv == ("serve", "5800", "-mg", "${GPU}", "--all", "${GPUS}")
    for memory in (
        "",
        "memory: off\n",
        "memory: {mode: off}\n",
        "memory: {mode: 'off', evict: lru}\n",
    ):
        assert {each.message for each in check(memory + model)} == {
            f"macro '${{{name}}}' is known only at a start: use it in cmd, with `memory:`"
            for name in ("GPU", "GPUS")
        }
    assert load("memory: {evict: lru}\n" + model).models["m"].argv == argv
    own = load("macros: {GPU: 3, GPUS: 4}\n" + model).models["m"].argv
    assert own[2:] == ("-mg", "3", "--all", "4")
