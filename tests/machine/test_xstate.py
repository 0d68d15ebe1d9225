"""XState machines in and out: the same chart read back, and examples of its documentation."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from swapchart.machine import (
    ChartError,
    Compiled,
    check,
    from_xstate,
    read_any,
    to_xstate,
    to_yaml,
)
from swapchart.machine.interchange.draft import Loss

from .charts import NAMES, chart
from .test_scxml import assert_same_steps

SECONDS = {"order": {"escalation": 172_800.0}}


@pytest.mark.parametrize("name", [*NAMES, "lifecycle"])
def test_from_xstate_of_an_export_returns_the_document(name: str) -> None:
    """Writing and reading lose nothing, promises included."""
    document = chart(name)

    assert from_xstate(to_xstate(document, timers=SECONDS.get(name))) == document


@pytest.mark.parametrize("name", NAMES)
def test_from_xstate_without_the_embedded_document_takes_the_same_steps(name: str) -> None:
    """The states, conditions, assignments and effects alone say what the chart does."""
    document = chart(name)
    machine = json.loads(to_xstate(document, timers=SECONDS.get(name)))
    del machine["meta"]
    again = from_xstate(json.dumps(machine))
    assert_same_steps(document, again, sorted)


def test_from_xstate_with_changed_states_reads_the_states() -> None:
    """The embedded document is left out, and said to be, once it does not fit the rest."""
    machine = json.loads(to_xstate(chart("compound")))
    first = next(iter(machine["states"].values()))
    first.setdefault("on", {})["ADDED"] = {"target": f"#{first['id']}"}
    lost: list[Loss] = []

    document = from_xstate(json.dumps(machine), lost=lost)

    assert "ADDED" in document.events
    assert any("no longer fits" in loss.why for loss in lost)


#: Charts such as those of XState's documentation: name -> (machine, story, configurations, losses).
EXAMPLES: dict[str, tuple[dict[str, Any], list[str], list[str], list[str]]] = {
    "toggle": (
        {"id": "toggle", "initial": "inactive",
         "states": {"inactive": {"on": {"TOGGLE": "active"}},
                    "active": {"on": {"TOGGLE": "inactive"}, "after": {"1000": "inactive"}}}},
        ["TOGGLE", "active_after_1000"],
        ["active", "inactive"],
        [],
    ),
    "fetch": (
        {"id": "fetch", "initial": "idle", "context": {"retries": 0, "data": None},
         "states": {
             "idle": {"on": {"FETCH": "loading"}},
             "loading": {"invoke": {"src": "fetchUser", "input": {"id": 1},
                                    "onDone": {"target": "success", "actions": ["save"]},
                                    "onError": "failure"}},
             "success": {"type": "final"},
             "failure": {"on": {"RETRY": {"target": "loading", "guard": "canRetry"}}}}},
        ["FETCH", "error.invoke.fetchUser", "RETRY", "done.invoke.fetchUser"],
        ["loading", "failure", "loading", "success"],
        ["input of the invoked 'fetchUser'", "datamodel.data"],
    ),
    "traffic light with a nested state (version 4)": (
        {"id": "light", "initial": "green", "predictableActionArguments": True,
         "states": {
             "green": {"on": {"TIMER": "yellow"}},
             "yellow": {"on": {"TIMER": {"target": "red", "cond": "isSafe"}}},
             "red": {"on": {"TIMER": "green", "RESET": ".wait"}, "initial": "walk",
                     "states": {"walk": {"on": {"PED_COUNTDOWN": "wait"}},
                                "wait": {"on": {"PED_COUNTDOWN": "stop"}},
                                "stop": {}}}}},
        ["TIMER", "TIMER", "PED_COUNTDOWN", "RESET", "TIMER"],
        ["yellow", "red walk", "red wait", "red wait", "green"],
        [],
    ),
    "word with parallel states and equal names": (
        {"id": "word", "type": "parallel",
         "states": {
             "bold": {"initial": "off", "states": {"off": {"on": {"TOGGLE_BOLD": "on"}},
                                                   "on": {"on": {"TOGGLE_BOLD": "off"}}}},
             "list": {"initial": "off", "states": {"off": {"on": {"BULLETS": "on"}},
                                                   "on": {"on": {"NONE": "off"}}}}},
         "on": {"RESET": [".bold.off"]}},
        ["TOGGLE_BOLD", "BULLETS", "RESET"],
        ["word bold on list list_off", "word bold on list list_on", "word bold off list list_off"],
        [],
    ),
    "player with history, always and wildcard": (
        {"id": "player", "initial": "on", "context": {"n": 0},
         "states": {
             "on": {"initial": "slow", "exit": ["stop music"],
                    "states": {"slow": {"on": {"faster": "fast"}}, "fast": {"always":
                               {"guard": "is broken", "target": "#smoke"}},
                               "hist": {"type": "history"}},
                    "on": {"key.*": {"actions": {"type": "beep", "params": {"hz": 440}}},
                           "power": "off"}},
             "off": {"on": {"power": "on.hist", "key.a": {"target": "on", "reenter": True}}},
             "smoke": {"id": "smoke", "type": "final", "output": {"code": 1}}}},
        ["faster", "power", "power", "key.a"],
        ["on fast", "off", "on fast", "on fast"],
        ["parameters of the action 'beep'", "smoke.output: a document has no place for it"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", EXAMPLES)
def test_from_xstate_example_is_imported_or_lists_what_is_lost(name: str) -> None:
    """The chart takes the events of the example, and exactly the named parts are lost."""
    machine, events, configurations, losses = EXAMPLES[name]
    lost: list[Loss] = []
    document = from_xstate(json.dumps(machine), lost=lost)

    real = [str(loss) for loss in lost if not loss.is_harmless]
    assert len(real) == len(losses), real
    assert all(any(part in line for line in real) for part in losses)
    assert read_any(to_yaml(document)) == document
    stepper = Compiled(document).stepper()
    stepper.begin()
    found = []
    for event in events:
        fields = {key: key not in ("is_broken_holds",) for key in document.events[event].data}
        stepper.step(event, fields)
        found.append(set(stepper.configuration))
    assert found == [set(words.split()) for words in configurations]
    assert check(document).states > 1


def test_from_xstate_that_loses_something_is_an_error_by_default() -> None:
    """The error lists all of it."""
    with pytest.raises(ChartError) as caught:
        from_xstate(json.dumps(EXAMPLES["fetch"][0]))

    assert "input of the invoked" in caught.value.__notes__[0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ("[1]", "expected an object with the key `states`"),
        ('{"states": {"a": 3}}', "machine.states.a: expected a mapping, got 3"),
        ('{"states": {"a": {"on": {"E": "nowhere"}}}}', "unknown target 'nowhere'"),
        ('{"states": {"a": {"on": {"E": "#x.y"}}}}', "unknown target '#x.y'"),
        ('{"a":' * 5000, "not JSON"),
        ('{"states": {"a": {' + '"states": {"b": {' * 200 + "}" * 403, "levels of nesting"),
    ],
)
def test_from_xstate_wrong_text_is_refused(text: str, message: str) -> None:
    """The message says what was expected, and does not repeat the text."""
    with pytest.raises(ChartError, match=re.escape(message)) as caught:
        from_xstate(text)

    assert len(str(caught.value)) < 300
