"""The simulated day of `./dev bench memory`, in small, and the limits that the command checks."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest

_BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The command's module."""
    monkeypatch.syspath_prepend(str(_BENCHMARKS))
    return importlib.import_module("memory")


@pytest.mark.parametrize("card_gib", [24, 48, 96])
def test_memory_day_overcommits_only_by_count(bench: Any, card_gib: int) -> None:
    """Neither groups, nor a matrix, nor the sum starts what does not fit; a count of three does."""
    over = {
        policy.name: bench.Simulation(3, 2.0, card_gib, policy).run().over
        for policy in bench.POLICIES
    }

    assert (over.pop("LRU by count, 3") > 0) == (card_gib < 96)
    assert set(over.values()) == {0}


def test_memory_day_serves_the_same_requests_under_each_policy(bench: Any) -> None:
    """A day has as many waits as its sessions have turns, whatever is evicted."""
    day = importlib.import_module("lab.memory_day")
    models = [name for name, need in day.MODELS.items() if need < 48]
    turns = sum(len(session.turns) for _, session in day.sessions(5, 1.0, models))

    for policy in bench.POLICIES:
        assert len(bench.Simulation(5, 1.0, 48, policy).run().waits_s) == turns


def test_memory_bench_result_worse_than_a_limit_fails(bench: Any) -> None:
    """Slow plans, a day without gain and an overcommit are reported, and a good day is not."""
    one = bench.Day(waits_s=[1.0], loads=2, swap_s=100.0, over=0)
    half = bench.Day(waits_s=[1.0], loads=1, swap_s=50.0, over=0)
    more = bench.Day(waits_s=[1.0], loads=1, swap_s=51.0, over=0)
    crash = bench.Day(waits_s=[1.0], loads=1, swap_s=10.0, over=1)

    def found(limited_ms: float, memory: Any) -> list[str]:
        days = {(48, bench.ONE.name): [one], (48, bench.COST.name): [memory]}
        failures: list[str] = bench.failures(limited_ms, days)
        return failures

    assert found(5.0, half) == []
    assert found(5.1, half) == ["a plan for 30 models takes 5.10 ms"]
    assert found(1.0, more) == ["51 s of swaps by memory, 100 s one at a time"]
    assert found(1.0, crash) == ["memory, cost starts more than fits on 48 GiB"]
