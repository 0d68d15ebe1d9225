"""Speed of the memory decision, and what it saves in a simulated day.

First, the time of one plan: running models on two pools, and a model that can go to either of them
or to both in halves. Then twelve models on one card of 24, 48 or 96 GiB, under the same requests
and several policies; see ``lab/memory_day.py``. No process is started.

Exits with 1 if a plan for 30 models takes more than 5 ms at the median, or if the decision by
memory is not twice as good as one model at a time, in seconds of loading on 48 GiB, or if it starts
a model that does not fit.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Sequence

from lab.memory_day import COST, GIB, ONE, POLICIES, Day, Policy, Simulation
from lab.report import Weather, document, median, publish, table

from swapchart.runtime.memory import Holder, Plan, Pool, Wanted, plan

_HOLDERS = (10, 30, 100, 1000)
_CARDS_GIB = (24, 48, 96)
_LIMIT_HOLDERS, _LIMIT_MS = 30, 5.0
_LIMIT_CARD_GIB, _LIMIT_FACTOR = 48, 2.0
_POOLS = ("GPU0", "GPU1")


# ---- plans
def world(count: int, seed: int, room: int = 0) -> tuple[dict[str, Pool], list[Holder]]:
    """Return two pools with *room* bytes free each beside *count* running models."""
    rng = random.Random(seed)
    holders = []
    for number in range(count):
        claim = {rng.choice(_POOLS): rng.randint(1, 40) * GIB // 4}
        if rng.random() < 0.3:
            claim["GPU0"] = rng.randint(1, 8) * GIB
        holders.append(
            Holder(
                name=f"model-{number}", claim=claim, granted=int(rng.random() < 0.2),
                is_pinned=rng.random() < 0.05, used_at=rng.uniform(0, 1000),
                load_s=rng.uniform(1, 60),
            )
        )  # fmt: skip
    pools = {}
    for name in _POOLS:
        held = sum(holder.holds(name) for holder in holders)
        pools[name] = Pool(name=name, capacity=held + GIB + room, reserve=GIB)
    return pools, holders


def plan_times_ms(count: int, worlds: int) -> list[float]:
    """Return the CPU time of a plan in each of *worlds* where a model must go; milliseconds."""
    times = []
    for seed in range(worlds):
        pools, holders = world(count, seed, room=GIB)
        need = (8 if seed % 2 else 24) * GIB
        halves = dict.fromkeys(_POOLS, need // 2)
        wanted = Wanted(name="wanted", options=({"GPU0": need}, {"GPU1": need}, halves))
        elapsed_ms, found = _timed(pools, holders, wanted, 1)
        if found.kind == "start":
            raise RuntimeError(f"{count} holders, seed {seed}: nothing has to go for {need} bytes")
        times.append(elapsed_ms)
    return times


def fitting_ms(count: int) -> float:
    """Return the mean CPU time of a plan for one option that fits; milliseconds."""
    pools, holders = world(count, 1, room=40 * GIB)
    elapsed_ms, found = _timed(pools, holders, Wanted(name="w", options=({"GPU0": 8 * GIB},)), 20)
    if found.kind != "start":
        raise RuntimeError(f"{count} holders: {found.why}")
    return elapsed_ms


def _timed(
    pools: dict[str, Pool], holders: Sequence[Holder], wanted: Wanted, repeats: int
) -> tuple[float, Plan]:
    began = time.thread_time()
    for _ in range(repeats):
        found = plan(pools, holders, wanted, 1000.0)
    return (time.thread_time() - began) * 1000 / repeats, found


def plans(worlds: int) -> tuple[str, float]:
    """Return the table of plan times, and the median in ms that is limited."""
    rows, limited = [], 0.0
    for count in _HOLDERS:
        times = plan_times_ms(count, worlds if count < 1000 else max(worlds // 3, 1))
        if count == _LIMIT_HOLDERS:
            limited = median(times)
        rows.append(
            [f"{count}", f"{median(times):.2f}", f"{max(times):.2f}", f"{fitting_ms(count):.3f}"]
        )
    columns = ["models that run", "3 options, 2 pools: median ms", "longest", "1 option that fits"]
    return table(columns, rows), limited


# ---- days
def day_row(card_gib: int, policy: Policy, days: Sequence[Day]) -> list[str]:
    """Return the row of one policy: means over *days*, and the longest wait of all."""

    def mean(values: Sequence[float]) -> float:
        return sum(values) / len(values)

    return [
        f"{card_gib} GiB, {policy.name}",
        f"{mean([day.loads for day in days]):,.0f}",
        f"{mean([day.swap_s for day in days]):,.0f}",
        f"{mean([day.mean_s for day in days]):.1f}",
        f"{mean([day.quantile_s(0.95) for day in days]):.1f}",
        f"{mean([day.quantile_s(0.99) for day in days]):.1f}",
        f"{max(day.waits_s[-1] for day in days):.0f}",
        f"{mean([day.over for day in days]):.1f}",
    ]


def simulated(
    hours: float, seeds: int, cards_gib: Sequence[int]
) -> tuple[str, dict[tuple[int, str], list[Day]]]:
    """Return the table of all policies on each card, and their days."""
    rows, found = [], {}
    for card_gib in cards_gib:
        for policy in POLICIES:
            print(f"{card_gib} GiB: {policy.name}", file=sys.stderr)
            days = [Simulation(seed, hours, card_gib, policy).run() for seed in range(seeds)]
            found[card_gib, policy.name] = days
            rows.append(day_row(card_gib, policy, days))
    columns = ["s", "loads", "swap seconds", "mean wait", "p95", "p99", "worst", "over"]
    return table(columns, rows), found


def failures(limited_ms: float, days: dict[tuple[int, str], list[Day]]) -> list[str]:
    """Return what is not as good as it must be, in words."""
    found = []
    if limited_ms > _LIMIT_MS:
        found.append(f"a plan for {_LIMIT_HOLDERS} models takes {limited_ms:.2f} ms")
    one, memory = (
        sum(day.swap_s for day in days[_LIMIT_CARD_GIB, policy.name]) for policy in (ONE, COST)
    )
    if memory * _LIMIT_FACTOR > one:
        found.append(f"{memory:.0f} s of swaps by memory, {one:.0f} s one at a time")
    for policy in POLICIES:
        if policy.kind == "memory":
            for (card_gib, name), results in days.items():
                if name == policy.name and any(day.over for day in results):
                    found.append(f"{name} starts more than fits on {card_gib} GiB")
    return found


def main() -> int:
    """Measure, print, and return 1 if a limit was not kept."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short day; nothing is kept")
    parser.add_argument("--hours", type=float, default=8.0, help="length of a day")
    parser.add_argument("--seeds", type=int, default=4, help="days for each policy and card")
    options = parser.parse_args()
    weather = Weather()
    plan_table, limited_ms = plans(10 if options.quick else 60)
    if options.quick:
        day_table, days = simulated(2.0, 1, [_LIMIT_CARD_GIB])
    else:
        day_table, days = simulated(options.hours, options.seeds, _CARDS_GIB)
    weather.note()
    parts = [
        "CPU time of one plan. The first columns: a model must go, or be waited for.",
        plan_table,
        f"Simulated days of {2.0 if options.quick else options.hours:g} h, means of "
        f"{1 if options.quick else options.seeds}. *over*: starts without enough memory. Models "
        "that are larger than the card are left out.",
        day_table,
    ]
    versions = {"Python": sys.version.split()[0]}
    text = document("Memory", "./dev bench memory", parts, weather, versions)
    publish("memory", text, keep=not options.quick)
    found = failures(limited_ms, days)
    for failure in found:
        print(f"FAILED: {failure}", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
