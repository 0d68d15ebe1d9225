"""Memory of history states: what a chart cannot remember is refused and never forgotten."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import anyio
import pytest

from swapchart.machine import Machine, Snapshot, SnapshotError, read
from swapchart.machine.restoring import restorable
from swapchart.runtime import Actions, Host

from .orders import ACTIONS, ORDER, events, machine, ways

#: A third region of `fulfilling`, so that what was remembered of two is no longer complete.
PACKING = """            packing:
              states:
                folding: {initial: true, transitions: [{event: folded, target: folded_up}]}
                folded_up: {final: true}
"""
THREE_REGIONS = (
    ORDER.read_text("utf-8")
    .replace("            payment:\n", f"{PACKING}            payment:\n")
    .replace("  cancel: {}\n", "  cancel: {}\n  folded: {}\n")
)

TWO = ("fulfilling", "stock", "reserving", "payment", "charging")
THREE = ("fulfilling", "stock", "reserving", "packing", "folding", "payment", "charging")

#: Its eventless transitions go round as long as data say so, so that it has no table.
NO_TABLE = """
format: swapchart.chart/v1
name: Untabled
data: {n: {initial: 0, values: [0, 1, 2, 3]}}
events: {hold: {}, deep: {}, flat: {}, next: {}, turn: {}, spin: {}}
guards: {more: n < 3}
actions: {add: {set: {n: 'min(n + 1, 3)'}}, zero: {set: {n: 0}}}
chart:
  states:
    open:
      initial: true
      history:
        back: {type: deep, transitions: [{target: one}]}
        near: {transitions: [{target: one}]}
      transitions: [{event: hold, target: held}, {event: spin, target: round, "on": zero}]
      states:
        one: {initial: true, transitions: [{event: next, target: both}]}
        both:
          parallel: true
          states:
            left:
              states:
                left_a: {initial: true, transitions: [{event: next, target: left_b}]}
                left_b: {}
            right:
              states:
                right_a: {initial: true, transitions: [{event: turn, target: right_b}]}
                right_b: {}
    held: {transitions: [{event: deep, target: back}, {event: flat, target: near}]}
    round: {transitions: [{target: around, cond: more}, {target: held}]}
    around: {transitions: [{target: round, "on": add}]}
"""


def held(chart: Machine, actions: Actions) -> Snapshot:
    """Return an order that was held while stock and payment were on their way."""
    found: list[Snapshot] = []

    async def main() -> None:
        async with Host() as host:
            one = host.start(chart, id="A", actions=actions)
            one.post("submit", {"value": 50})
            one.post("hold")
            found.append(one.snapshot())

    anyio.run(main)
    assert found[0].memory == (("back", TWO),)
    return found[0]


def test_replaced_chart_with_a_region_more_keeps_what_remembers_fewer() -> None:
    """The instance stays with the chart in which its memory means something."""
    new = Machine(read(THREE_REGIONS))

    async def main() -> None:
        async with Host() as host:
            one = host.start(machine(), id="A", actions=ACTIONS)
            one.post("submit", {"value": 50})
            one.post("hold")
            found = host.replace(new)
            assert found.moved == ()
            assert f"memory.back: the chart cannot remember {', '.join(TWO)}" in found.kept["A"]
            assert "migration" in found.kept["A"]
            one.post("resume")
            assert "charging" in one.configuration  # and not the draft

    anyio.run(main)


def test_migration_that_leaves_the_memory_alone_is_refused() -> None:
    """The error names the history state and a memory that fits; with that the order goes on."""
    new = Machine(read(THREE_REGIONS.replace("version: 1", "version: 2")))
    new.migrations.add("1", "2", lambda old: old)
    with pytest.raises(SnapshotError) as caught:
        restorable(new, held(machine(), ACTIONS))
    assert caught.value.where == "memory.back"
    assert "expected fulfilling, stock, reserving, packing, fold" in caught.value.why

    mended = Machine(read(THREE_REGIONS.replace("version: 1", "version: 2")))
    whole = (("back", THREE),)
    mended.migrations.add("1", "2", lambda old: replace(old, memory=whole))

    snapshot = held(machine(), ACTIONS)

    async def main() -> None:
        async with Host() as host:
            one = host.resume(mended, snapshot, actions=ACTIONS)
            one.post("resume")
            assert {"reserving", "folding", "charging"} <= one.active

    anyio.run(main)


@pytest.mark.parametrize("needed", [1, 2])
def test_memory_of_every_situation_fits(needed: int) -> None:
    """Nothing that the chart itself remembers is refused."""
    chart = machine()
    stepper = chart.traced_stepper(needed=needed)
    chart.begin(stepper)
    first = (stepper.configuration, stepper.context.values(), stepper.memory)
    snapshot = held(chart, ACTIONS)
    remembered = set()
    for way in ways(chart, needed):
        stepper.restore(*first)
        for event, given in way:
            chart.step(stepper, event, chart.fields(event, given))
        remembered.add(stepper.memory)
        assert restorable(chart, replace(snapshot, memory=stepper.memory)).memory == stepper.memory
    assert len(remembered) > 3
    assert events(chart.document)


# ---- charts without a table
def states_of(chart: Machine) -> Iterator[tuple[str, ...]]:
    """Yield every set of at most five states, in document order."""
    known = [name for name, _, _ in chart.document.states()]
    for number in range(1 << len(known)):
        if 0 < number.bit_count() <= 5:
            yield tuple(name for index, name in enumerate(known) if number >> index & 1)


def test_memory_of_a_chart_without_a_table_fits_if_entering_it_is_complete() -> None:
    """Exactly the sets that the chart itself can remember are accepted."""
    chart = Machine(read(NO_TABLE))
    assert chart.table is None
    base = Snapshot(
        id="a", chart=chart.name, digest=chart.digest, taken_at=0.0, configuration=("held",),
        data={"n": 0},
    )  # fmt: skip
    problems: set[str] = set()
    taken: dict[str, set[tuple[str, ...]]] = {"back": set(), "near": set()}
    for states in states_of(chart):
        for history, found in taken.items():
            try:
                restorable(chart, replace(base, memory=((history, states),)))
            except SnapshotError as error:
                problems.add(error.where)
            else:
                found.add(states)

    assert problems == {"memory.back", "memory.near"}
    assert taken["near"] == {("one",), ("both",)}
    deep: set[tuple[str, ...]] = {("one",)}
    deep |= {
        ("both", "left", f"left_{a}", "right", f"right_{b}") for a in "ab" for b in "ab"
    }  # fmt: skip
    assert taken["back"] == deep


def test_chart_without_a_table_remembers_what_is_accepted() -> None:
    chart = Machine(read(NO_TABLE))

    async def main() -> None:
        async with Host() as host:
            one: Any = host.start(chart, id="a", actions=Actions())
            for event in ("next", "next", "hold"):
                one.post(event)
            snapshot = one.snapshot()
            host.remove("a")
            back = ("both", "left", "left_b", "right", "right_a")
            assert dict(snapshot.memory) == {"back": back, "near": ("both",)}
            again = host.resume(chart, snapshot)
            again.post("deep")
            assert {"left_b", "right_a"} <= again.active

    anyio.run(main)
