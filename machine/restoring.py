"""Check of a snapshot against the chart that is to go on with it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from .compiled import Machine, is_among
from .document import Configuration, Document, Value, walk
from .errors import ChartError, EventError, SnapshotError
from .format.expressions import is_small
from .snapshot import Snapshot, checked

_MEND = "write a migration that changes it, or leaves it out so that the default is entered"


def restorable(machine: Machine, snapshot: Snapshot, *, as_is: bool = False) -> Snapshot:
    """Return *snapshot* as *machine* can go on with it: migrated and checked.

    Args:
        machine: The chart.
        snapshot: State of an instance of the chart, or of an earlier version of it.
        as_is: Take the snapshot of another version or another digest too, if everything in it
            exists in *machine*.

    Raises:
        SnapshotError: It belongs to another chart, or something in it does not fit or is of another
            type.
    """
    snapshot = checked(snapshot)
    if snapshot.chart != machine.name:
        raise SnapshotError("chart", f"expected {machine.name!r}, got {snapshot.chart!r}")
    migrated = snapshot
    if snapshot.version != machine.version and not as_is:
        migrated = machine.migrations.migrate(snapshot, machine.version)
    elif not as_is and not machine.has_digest(snapshot.digest):
        found = f"expected {machine.digest[:12]}.., got {snapshot.digest[:12]}.."
        why = f"{found}: the chart has changed; give it another `version` and add a migration"
        raise SnapshotError("digest", why)
    for where, why in _problems(machine, migrated):
        raise SnapshotError(where, why)
    order = {name: number for number, name in enumerate(machine.document.data)}
    return replace(
        migrated,
        version=machine.version,
        digest=machine.digest,
        data=dict(sorted(migrated.data.items(), key=lambda item: order[item[0]])),
    )


def _problems(machine: Machine, snapshot: Snapshot) -> Iterator[tuple[str, str]]:
    document = machine.document
    yield from _configuration_problems(machine, snapshot.configuration)
    yield from _value_problems("data", snapshot.data, document.data)
    try:
        machine.parameters(snapshot.parameters)
    except ChartError as error:
        yield error.where, error.why
    yield from _memory_problems(machine, snapshot)
    for name in snapshot.timers:
        if name not in machine.fired:
            yield f"timers.{name}", "the chart has no such timer"
    for run in snapshot.activities:
        where = f"activities.{run.activity}"
        if run.activity not in machine.answers:
            yield where, "the chart has no such activity"
        elif run.event:
            yield from _event_problems(machine, where, run.event, run.fields)
    for index, event in enumerate(snapshot.pending):
        yield from _event_problems(machine, f"pending[{index}]", event.event, event.fields)


def _event_problems(
    machine: Machine, where: str, event: str, fields: Mapping[str, Value]
) -> Iterator[tuple[str, str]]:
    try:
        machine.fields(event, fields)
    except EventError as error:
        yield where, str(error)


def _value_problems(
    where: str, values: Mapping[str, Value], declared: Mapping[str, Any]
) -> Iterator[tuple[str, str]]:
    for name in declared.keys() - values.keys():
        yield f"{where}.{name}", "is missing"
    for name, value in values.items():
        datum = declared.get(name)
        if datum is None:
            yield f"{where}.{name}", "the chart has no such variable"
        elif datum.values is not None and not is_among(value, datum.values):
            expected = ", ".join(map(repr, datum.values))
            yield f"{where}.{name}", f"expected one of {expected}; got {value!r}"
        elif datum.values is None and (
            type(value) is not type(datum.initial) or not is_small(value)
        ):
            kind = type(datum.initial).__name__
            yield f"{where}.{name}", f"expected a value of type {kind}; got {value!r}"


def _configuration_problems(
    machine: Machine, configuration: Configuration
) -> Iterator[tuple[str, str]]:
    known = [name for name, _, _ in machine.document.states()]
    for name in configuration:
        if name not in known:
            yield "configuration", f"the chart has no state {name!r}"
            return
    shown = ".".join(configuration) or "nothing"
    if machine.table is not None:
        if configuration not in machine.table.rows:
            yield "configuration", f"the chart can never be in {shown}"
        return
    if list(configuration) != [name for name in known if name in configuration]:
        yield "configuration", f"expected states in document order, got {shown}"
    if not is_complete(machine.document, frozenset(configuration)):
        yield "configuration", f"expected one active state in each region, got {shown}"


def is_complete(document: Document, active: frozenset[str]) -> bool:
    """Return True if *active* has one state in each active region, and nothing else."""
    return _count(document.chart["states"], active, all_of=False) == len(active)


def _count(states: Mapping[str, Any], active: frozenset[str], *, all_of: bool) -> int:
    """Return how many of *active* are in *states* and below; -1 if a region is not complete."""
    inside = [name for name in states if name in active]
    if len(inside) != (len(states) if all_of else 1):
        return -1
    found = len(inside)
    for name in inside:
        definition = states[name] or {}
        if definition.get("states"):
            is_parallel = bool(definition.get("parallel"))
            below = _count(definition["states"], active, all_of=is_parallel)
            if below < 0:
                return -1
            found += below
    return found


def _memory_problems(machine: Machine, snapshot: Snapshot) -> Iterator[tuple[str, str]]:
    parents = {
        history: (name, definition)
        for name, definition, _ in machine.document.states()
        for history in definition.get("history") or {}
    }
    for history, states in snapshot.memory:
        where = f"memory.{history}"
        if history not in parents:
            yield where, "the chart has no such history state"
            continue
        name, definition = parents[history]
        inside = {inner for inner, _, _ in walk(definition["states"])}
        if not states or any(state not in inside for state in states):
            yield where, f"expected states inside {name!r}, got {', '.join(states)}; {_MEND}"
            continue
        closest = _closest(machine, history, states, definition)
        if closest != states:
            example = f" {', '.join(closest)} or similar" if closest else " a whole configuration"
            shown = ", ".join(states)
            yield where, f"the chart cannot remember {shown}; expected{example}: {_MEND}"


def _closest(
    machine: Machine, history: str, states: Configuration, definition: Mapping[str, Any]
) -> Configuration:
    """Return *states* if the history state can remember them, else something similar or nothing."""
    if machine.table is not None:
        known = machine.reach.remembered.get(history, frozenset())
        return max(
            sorted(known),
            key=lambda memory: (memory == states, len({*memory} & {*states}), -len(memory)),
            default=(),
        )
    is_deep = (definition["history"][history] or {}).get("type") == "deep"
    inside = definition["states"] if is_deep else dict.fromkeys(definition["states"])
    active, is_parallel = frozenset(states), bool(definition.get("parallel"))
    if _count(inside, active, all_of=is_parallel) != len(active):
        return ()
    return tuple(name for name, _, _ in walk(inside) if name in active)
