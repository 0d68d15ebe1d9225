"""Digests: what behaves alike has one, whatever is written around it."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Callable
from typing import Any

import pytest

from swapchart.machine import (
    Machine,
    Migrations,
    Snapshot,
    SnapshotError,
    check,
    from_mapping,
    lifecycle,
    read,
)
from swapchart.machine.checking.mutants import mutants
from swapchart.machine.digest import digest_of, first_digest_of, proof_digest_of
from swapchart.machine.restoring import restorable

from .charts import NAMES, chart

PARCEL = """
format: swapchart.chart/v1
name: Parcel
version: "3"
description: A parcel on its way.
payload: the parcel
data: {stops: {initial: 0}, weight: {values: [1, 2]}}
parameters: {most: {values: [2, 3]}, kind: {values: [a, b]}}
timers: {patience: 90}
events:
  ship: {data: {kilos: [1, 2], day: [mon, tue]}, description: The client sends it.}
  lost: {origin: timer, of: patience, description: Too long.}
  arrived: {origin: activity, of: carry}
  failed: {origin: activity, of: carry, on: error}
guards: {is_light: weight < 2, is_far: stops > most}
actions:
  weigh: {set: {weight: kilos, stops: stops + 1}, description: On the scales.}
  carry: {do: {effect: activity.start, activity: carry}}
  drop: {do: {effect: activity.cancel, activity: carry}}
  arm: {do: {effect: timer.start, timer: patience}}
  disarm: {do: {effect: timer.cancel, timer: patience}}
notes: {arm: in 90 s}
promises:
  rest: [shelf]
  always: [{why: it is never light and far, then: not (weight < 2 and stops > 3)}]
chart:
  name: Parcel
  states:
    shelf:
      initial: true
      description: In stock.
      tags: [stock]
      transitions:
        - {event: ship, target: road, cond: is_light, "on": weigh, description: Off it goes.}
        - {event: ship, target: road, "on": weigh, tags: [heavy]}
    road:
      enter: [carry, arm]
      exit: [drop, disarm]
      transitions:
        - {event: arrived, target: done, unless: is_far}
        - {event: arrived failed lost, target: shelf}
    done: {final: true}
"""

#: Digest of PARCEL, written by commit 926a228a, as the snapshots of that time have it.
FIRST = "b782e9030a573b116c39895b41114e628013a0246736b42f4c53cf56d7b98383"

Edit = Callable[[dict[str, Any]], None]


def edited(edit: Edit) -> dict[str, Any]:
    raw: dict[str, Any] = json.loads(json.dumps(read(PARCEL).source))
    edit(raw)
    return raw


def turned(mapping: dict[str, Any]) -> None:
    """Reverse the order of the keys of *mapping*."""
    items = list(mapping.items())[::-1]
    mapping.clear()
    mapping.update(items)


def rename(raw: dict[str, Any]) -> None:
    """Give a guard and an action other names."""
    text = json.dumps(raw).replace("is_light", "is_feather").replace("weigh", "scale")
    raw.clear()
    raw.update(json.loads(text.replace("scalet", "weight")))


def transitions(raw: dict[str, Any], state: str = "shelf") -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = raw["chart"]["states"][state]["transitions"]
    return found


SILENT: dict[str, Edit] = {
    "description": lambda raw: raw.update(description="Another."),
    "tags": lambda raw: raw.update(tags=["x"]),
    "payload": lambda raw: raw.update(payload="a box"),
    "title": lambda raw: raw["chart"].update(name="Box"),
    "notes": lambda raw: raw.update(notes={"arm": "soon"}),
    "event": lambda raw: raw["events"]["ship"].update(description="Sent.", tags=["out"]),
    "action": lambda raw: raw["actions"]["weigh"].pop("description"),
    "datum": lambda raw: raw["data"]["stops"].update(description="Halts."),
    "parameter": lambda raw: raw["parameters"]["most"].update(description="Halts."),
    "state": lambda raw: raw["chart"]["states"]["shelf"].update(description="?", tags=[]),
    "inner": lambda raw: raw["chart"]["states"]["done"].update(description="The end."),
    "transition": lambda raw: transitions(raw)[0].update(description="Go.", tags=["x"]),
    "why": lambda raw: raw["promises"]["always"][0].update(why="in other words"),
    "names": rename,
    "lists": lambda raw: transitions(raw)[0].update(cond=["is_light"], on=["weigh"]),
    "flags": lambda raw: raw["chart"]["states"]["shelf"].update(final=False),
    "duration": lambda raw: raw["timers"].update(patience="1m30s"),
    "order of data": lambda raw: turned(raw["data"]),
    "order of parameters": lambda raw: turned(raw["parameters"]),
    "order of events": lambda raw: turned(raw["events"]),
    "order of fields": lambda raw: turned(raw["events"]["ship"]["data"]),
    "order of actions": lambda raw: turned(raw["actions"]),
    "order of keys": lambda raw: turned(transitions(raw)[0]),
    "order of assignments": lambda raw: turned(raw["actions"]["weigh"]["set"]),
}
TELLING: dict[str, Edit] = {
    "name": lambda raw: raw.update(name="Box"),
    "version": lambda raw: raw.update(version="4"),
    "initial": lambda raw: raw["data"]["stops"].update(initial=1),
    "domain": lambda raw: raw["data"]["weight"].update(values=[1, 2, 3]),
    "type": lambda raw: raw["data"]["stops"].update(initial=False, values=[False, True]),
    "default of a field": lambda raw: raw["events"]["ship"]["data"].update(kilos=[2, 1]),
    "payload of an event": lambda raw: raw["events"]["ship"].update(payload=True),
    "guard": lambda raw: raw["guards"].update(is_light="weight < 3"),
    "assignment": lambda raw: raw["actions"]["weigh"]["set"].update(stops="stops + 2"),
    "condition": lambda raw: raw["actions"]["weigh"].update(when="stops < 9"),
    "order of effects": lambda raw: raw["chart"]["states"]["road"].update(enter=["arm", "carry"]),
    "timer": lambda raw: raw["timers"].update(patience=91),
    "order of transitions": lambda raw: transitions(raw).reverse(),
    "target": lambda raw: transitions(raw)[0].update(target="done"),
    "phase of actions": lambda raw: transitions(raw)[0].update(
        before=transitions(raw)[0].pop("on")
    ),
    "unless": lambda raw: transitions(raw)[0].update(unless=transitions(raw)[0].pop("cond")),
    "order of states": lambda raw: turned(raw["chart"]["states"]),
    "unsure": lambda raw: raw["promises"].update(unsure=["carry"]),
}


@pytest.mark.parametrize("edit", SILENT.values(), ids=SILENT)
def test_text_that_does_nothing_changes_no_digest(edit: Edit) -> None:
    """Neither that of snapshots nor that of proofs; the edit is in the document nevertheless."""
    document = from_mapping(edited(edit))

    assert json.dumps(document.source) != json.dumps(read(PARCEL).source)
    assert digest_of(document) == digest_of(read(PARCEL))
    assert proof_digest_of(document) == proof_digest_of(read(PARCEL))
    assert Machine(document) == Machine(read(PARCEL))


@pytest.mark.parametrize("edit", TELLING.values(), ids=TELLING)
def test_text_that_does_something_changes_both_digests(edit: Edit) -> None:
    """A snapshot would go on otherwise, and what was proven need not hold."""
    document = from_mapping(edited(edit))

    assert digest_of(document) != digest_of(read(PARCEL))
    assert proof_digest_of(document) != proof_digest_of(read(PARCEL))


@pytest.mark.parametrize(
    "edit",
    [
        lambda raw: raw["promises"].update(rest=["shelf", "road"]),
        lambda raw: raw["promises"].update(patience=["failed"]),
        lambda raw: raw["promises"].update(reliable=["carry"]),
        lambda raw: raw["promises"].pop("always"),
        lambda raw: raw["promises"]["always"][0].update(then="stops >= 0"),
        lambda raw: raw["promises"]["always"][0].update({"in": ["road"]}),
        lambda raw: raw["promises"].update(pairs=[{"begin": "shelf", "end": "road"}]),
    ],
)
def test_promise_changes_the_digest_of_proofs_only(edit: Edit) -> None:
    """Snapshots still open, but a report for other promises is not taken for these."""
    document = from_mapping(edited(edit))

    assert digest_of(document) == digest_of(read(PARCEL))
    assert proof_digest_of(document) != proof_digest_of(read(PARCEL))


@pytest.mark.parametrize("name", NAMES)
def test_mutants_of_a_chart_have_other_digests(name: str) -> None:
    """Each mutant changes a transition or a state."""
    document = chart(name)
    digests = [digest_of(mutant.document) for mutant in mutants(document)]

    assert digest_of(document) not in digests


def test_guard_in_the_place_of_a_name_has_the_digest_of_the_named_one() -> None:
    """The name that it gets says nothing about what the chart does."""
    text = PARCEL.replace("cond: is_light", "cond: weight < 2").replace(
        "is_light: weight < 2, ", ""
    )

    assert read(text).guards.keys() != read(PARCEL).guards.keys()
    assert digest_of(read(text)) == digest_of(read(PARCEL))


# ---- snapshots of earlier programs
def a_snapshot(digest: str) -> Snapshot:
    return Snapshot(
        id="1", chart="Parcel", version="3", digest=digest, taken_at=0.0, configuration=("shelf",),
        data={"stops": 0, "weight": 1}, parameters={"most": 2, "kind": "a"},
    )  # fmt: skip


def test_snapshot_of_an_earlier_program_still_opens() -> None:
    """Its digest covered descriptions: it fits the same document, and is renewed."""
    machine = Machine(read(PARCEL))
    assert first_digest_of(machine.document) == FIRST != machine.digest

    found = restorable(machine, a_snapshot(FIRST))

    assert found.digest == machine.digest


def test_snapshot_opens_after_an_edit_of_a_description() -> None:
    """One of an earlier program does not: its digest is of the text as it was."""
    again = Machine(from_mapping(edited(SILENT["event"])))

    assert restorable(again, a_snapshot(Machine(read(PARCEL)).digest)).digest == again.digest
    with pytest.raises(SnapshotError, match="digest: expected"):
        restorable(again, a_snapshot(FIRST))
    with pytest.raises(SnapshotError, match="digest: expected"):
        restorable(Machine(from_mapping(edited(TELLING["guard"]))), a_snapshot(again.digest))


# ---- copies of a machine
def later(snapshot: Snapshot) -> Snapshot:
    """Migrate *snapshot*, at the top level of a module, so that it can be pickled."""
    return snapshot


@pytest.mark.parametrize(
    "copied", [copy.copy, copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))]
)
def test_copy_of_a_machine_has_its_migrations(copied: Callable[[Machine], Machine]) -> None:
    """A pickled one holds the functions by their names."""
    machine = Machine(read(PARCEL))
    machine.migrations.add("2", "3", later)
    again = copied(machine)

    assert again == machine
    assert isinstance(again.migrations, Migrations)
    old = a_snapshot(machine.digest)
    assert again.migrations.migrate(old, "3") == old
    assert restorable(again, Snapshot(**{**_fields(old), "version": "2"})).version == "3"


def _fields(snapshot: Snapshot) -> dict[str, Any]:
    return {name: getattr(snapshot, name) for name in Snapshot.__dataclass_fields__}


def test_copy_of_a_machine_with_allowed_loops_allows_them() -> None:
    """A machine that could be made can be copied, and so can its steppers."""
    states = {
        "a": {"initial": True, "transitions": [{"event": "go", "target": "b"}]},
        "b": {"transitions": [{"target": "c"}]},
        "c": {"transitions": [{"target": "b"}]},
    }
    raw = {"format": "swapchart.chart/v1", "events": {"go": {}}, "chart": {"states": states}}
    machine = Machine(from_mapping(raw), allow_loops=True)

    assert pickle.loads(pickle.dumps(machine)) == machine
    stepper = machine.stepper()
    assert pickle.loads(pickle.dumps(stepper)).configuration == stepper.configuration


# ---- cost
def test_digest_of_a_document_is_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Machines of one document share it, however many are made."""
    document, calls = read(PARCEL), []
    for name in ("digest_of", "first_digest_of"):
        real = {"digest_of": digest_of, "first_digest_of": first_digest_of}[name]

        def counted(given: Any, real: Any = real, name: str = name) -> str:
            calls.append(name)
            return str(real(given))

        monkeypatch.setattr(f"swapchart.machine.compiled.{name}", counted)
    digests = {Machine(document).digest for _ in range(5)}

    assert len(digests) == 1
    assert len(calls) <= 3


def test_shared_machine_of_a_document_is_one_object() -> None:
    """As long as the document lives: an equal one has a machine of its own."""
    document = read(PARCEL)

    assert Machine.of(document) is Machine.of(document)
    assert Machine.of(read(PARCEL)) is not Machine.of(document)
    assert Machine.of(read(PARCEL)).table is Machine.of(document).table
    for number in range(200):  # the identities of those forgotten may come again
        other = read(PARCEL.replace('"3"', f'"{number}"'))
        assert Machine.of(other).document is other


def test_machine_of_an_edited_document_is_its_own() -> None:
    """A description is a part of the machine's document, though not of its digest."""
    first, second = Machine(read(PARCEL)), Machine(from_mapping(edited(SILENT["description"])))

    assert first == second
    assert first.document.description != second.document.description
    assert first.context_class.chart_document.description == first.document.description
    assert second.context_class.chart_document.description == second.document.description


def test_report_of_another_promise_is_told_apart() -> None:
    """The digest of a report is that of the chart with its promises."""
    document = lifecycle()

    assert check(read(PARCEL)).digest == proof_digest_of(read(PARCEL))
    assert digest_of(document) != proof_digest_of(document)
