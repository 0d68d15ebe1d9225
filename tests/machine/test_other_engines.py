"""Exports run in SCION and in xstate as they do here."""

from __future__ import annotations

import contextlib
import json
import os
import random
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from statemachine.io import load
from tools.documents import PAGES, blocks
from tools.node import run_node

from swapchart.machine import (
    Compiled,
    Document,
    NotHandledError,
    from_xstate,
    to_scxml,
    to_xstate,
)
from swapchart.machine.effects import describe

from .charts import NAMES, chart
from .test_scxml import story
from .test_xstate import EXAMPLES

#: ./dev test-all runs more stories.
STORIES = 1000 if os.environ.get("SWAPCHART_LONG") == "1" else 200
CHARTS = [*NAMES, "lifecycle"]

XSTATE = """
import { readFileSync } from 'node:fs'
import { start } from './chart.mjs'
const { config, stories } = JSON.parse(readFileSync(0))
const still = { setTimeout: () => 0, clearTimeout: () => {}, now: () => 0 }
const out = stories.map((story) => {
  let effects = []
  const actor = start(config, (effect) => effects.push(effect), {}, { clock: still })
  const seen = () => {
    const { _nodes: nodes, context } = actor.getSnapshot()
    const states = nodes.filter((node) => node.parent).map((node) => node.key)
    const found = [states.sort(), context, effects]
    effects = []
    return found
  }
  const found = [seen()]
  for (const event of story) { actor.send(event); found.push(seen()) }
  actor.stop()
  return found
})
console.log(JSON.stringify(out))
"""

SCION = """
const scxml = require('@scion-scxml/scxml')
const { text, stories } = JSON.parse(require('fs').readFileSync(0))
const log = (effects) => (label, value) =>
  effects.push(value === undefined ? label : `${label} ${value}`)
const follow = (make, story) => {
  const effects = []
  const invokers = { 'urn:swapchart:activity': () => {} }
  const chart = new scxml.core.Statechart(make, { console: { log: log(effects) }, invokers })
  const seen = () => {
    const states = chart.getFullConfiguration().filter((id) => !id.startsWith('$'))
    return [states.sort(), { ...chart.getSnapshot()[3] }, effects.splice(0)]
  }
  chart.start()
  const found = [seen()]
  for (const { type, ...data } of story) { chart.gen({ name: type, data }); found.push(seen()) }
  return found
}
scxml.documentStringToModel('chart.scxml', text, async (error, model) => {
  if (error) throw error
  const out = []
  for (const story of stories) {  // instances of one prepared model share their data
    const make = await new Promise((resolve, reject) =>
      model.prepare((error, make) => error ? reject(error) : resolve(make)))
    out.push(follow(make, story))
  }
  console.log(JSON.stringify(out))
})
"""


def stories_of(
    document: Document, seed: int, number: int = STORIES, without: str = ""
) -> list[list[dict[str, Any]]]:
    """Return random stories, each of which ends with the chart; none has the event *without*."""
    rng = random.Random(seed)
    compiled = Compiled(document)
    found = []
    for _ in range(number):
        stepper = compiled.stepper()
        stepper.begin()
        events: list[dict[str, Any]] = []
        for name, fields in story(document, rng, 14):
            if stepper.is_final:
                break
            if name == without:
                continue
            events.append({"type": name, **fields})
            with contextlib.suppress(NotHandledError):
                stepper.step(name, fields)
        found.append(events)
    return found


def followed(compiled: Compiled, events: Sequence[Mapping[str, Any]]) -> list[Any]:
    """Return configuration, data and effects at the start and after each event."""
    document, stepper = compiled.document, compiled.stepper()

    def seen(effects: Sequence[Any]) -> list[Any]:
        values = dict(zip(document.data, stepper.context.values(), strict=True))
        return [sorted(stepper.configuration), values, list(map(describe, effects))]

    found = [seen(stepper.begin())]
    for event in events:
        fields = {key: value for key, value in event.items() if key != "type"}
        try:
            found.append(seen(stepper.step(str(event["type"]), fields)))
        except NotHandledError:
            found.append(seen([]))
    return found


def assert_same(
    document: Document, stories: Sequence[Any], theirs: Sequence[Any], name: str
) -> None:
    assert len(theirs) == len(stories) > 40
    # Two regions that take one event may act in either order.
    is_parallel = any(body.get("parallel") for _, body, _ in document.states())
    compiled = Compiled(document)
    for events, found in zip(stories, theirs, strict=True):
        for index, (ours, other) in enumerate(zip(followed(compiled, events), found, strict=True)):
            configuration, context, effects = other
            data = {key: context[key] for key in document.data}
            if is_parallel:
                ours[2], effects = sorted(ours[2]), sorted(effects)
            at = f"{name}, after {[event['type'] for event in events[:index]]}"
            assert [configuration, data, effects] == ours, at


def page_module(folder: Path) -> None:
    """Write the program of docs/chart-formats.md into *folder*."""
    (program,) = blocks(PAGES["chart-formats.md"], "js")
    (folder / "chart.mjs").write_text(program)


@pytest.mark.slow
@pytest.mark.parametrize("name", CHARTS)
def test_to_xstate_runs_random_stories_as_the_document_does(name: str, tmp_path: Path) -> None:
    """States, data and effects are equal after each event, with the program of the page."""
    document = chart(name)
    stories = stories_of(document, 11)
    page_module(tmp_path)
    script = tmp_path / "stories.mjs"
    script.write_text(XSTATE)
    given = json.dumps({"config": json.loads(to_xstate(document)), "stories": stories})

    theirs = json.loads(run_node("xstate", script, [], given=given))

    for found in theirs:
        for part in found:
            part[2] = [in_words(effect) for effect in part[2]]
    assert_same(document, stories, theirs, name)


def in_words(effect: Mapping[str, Any]) -> str:
    """Return an effect of the JSON as `describe` writes it."""
    words = [str(value) for key, value in effect.items() if key not in ("event", "delay")]
    return " ".join(words)


@pytest.mark.slow
@pytest.mark.parametrize("name", CHARTS)
def test_to_scxml_runs_random_stories_in_scion(name: str, tmp_path: Path) -> None:
    """States, data and logged effects are equal after each event, in ECMAScript.

    SCION does not restore final states from a deep history, so `resume` is left out.
    """
    document = chart(name)
    stories = stories_of(document, 12, STORIES // 4, without="resume")
    script = tmp_path / "stories.js"
    script.write_text(SCION)
    text = to_scxml(document, datamodel="ecmascript")

    theirs = json.loads(
        run_node(
            "@scion-scxml/scxml", script, [], given=json.dumps({"text": text, "stories": stories})
        )
    )

    assert_same(document, stories, theirs, name)


TIMERS = """
import { readFileSync } from 'node:fs'
import { SimulatedClock } from 'xstate'
import { start } from './chart.mjs'
const clock = new SimulatedClock()
const actor = start(JSON.parse(readFileSync(0)), () => {}, {}, { clock })
actor.send({ type: 'submit', value: 5000 })
const found = []
for (let day = 2; day <= 6; day += 2) {
  clock.increment(2 * 86400 * 1000)
  found.push(actor.getSnapshot().context.reminders, actor.getSnapshot().value)
}
console.log(JSON.stringify(found))
"""


@pytest.mark.slow
def test_to_xstate_order_is_rejected_by_its_timers(tmp_path: Path) -> None:
    """Two reminders after two days each, and the end after six days of a simulated clock."""
    page_module(tmp_path)
    script = tmp_path / "timers.mjs"
    script.write_text(TIMERS)
    given = to_xstate(chart("order"), timers={"escalation": 2 * 86_400})

    found = json.loads(run_node("xstate", script, [], given=given))

    waiting = {"open": "waiting"}
    assert found == [1, waiting, 2, waiting, 2, "rejected"]


SCION_TIMERS = """
const scxml = require('@scion-scxml/scxml')
const text = require('fs').readFileSync(0, 'utf8')
scxml.documentStringToModel('order.scxml', text, (error, model) => {
  if (error) throw error
  model.prepare((error, make) => {
    if (error) throw error
    const chart = new scxml.core.Statechart(make, { console: { log: () => {} }, invokers: {} })
    const path = []
    chart.on('onEntry', (id) => {
      path.push(id)
      if (id === 'rejected') { console.log(JSON.stringify(path)); process.exit(0) }
    })
    chart.start()
    chart.gen({ name: 'submit', data: { value: 5000 } })
    setTimeout(() => process.exit(1), 60000)
  })
})
"""


@pytest.mark.slow
def test_to_scxml_order_is_rejected_by_its_timers_in_scion(tmp_path: Path) -> None:
    """The order waits three times, as long as a delayed event takes each time."""
    script = tmp_path / "timers.js"
    script.write_text(SCION_TIMERS)
    text = to_scxml(chart("order"), datamodel="ecmascript", timers={"escalation": 0.05})

    path = json.loads(run_node("@scion-scxml/scxml", script, [], given=text))

    assert [state for state in path if state in ("waiting", "rejected")] == [
        *["waiting"] * 3, "rejected",
    ]  # fmt: skip


def test_to_scxml_order_is_rejected_by_its_timers_in_python_statemachine(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Its synchronous engine waits for delayed events, so the order has ended after `send`."""
    text = to_scxml(chart("order"), timers={"escalation": 0.02})
    machine: Any = load(text, format="scxml", trusted=True)()

    machine.send("submit", value=5000)

    deadline = time.monotonic() + 60
    while "rejected" not in machine.configuration_values and time.monotonic() < deadline:
        machine.send("nothing")
    assert {str(value) for value in machine.configuration_values} == {"rejected"}
    assert machine.model.reminders == 2
    assert capsys.readouterr().out.count("timer.start: 'escalation'") == 3


IMPORTED = """
import { readFileSync } from 'node:fs'
import { createActor, createMachine, fromCallback } from 'xstate'
const out = JSON.parse(readFileSync(0)).map(([config, events]) => {
  const every = (kind, value) => Object.fromEntries(
    [...JSON.stringify(config).matchAll(new RegExp(`"${kind}":"([^"]+)"`, 'g'))]
      .map(([, name]) => [name, value]))
  const guards = { ...every('guard', () => true), 'is broken': () => false }
  const actors = every('src', fromCallback(() => {}))
  const machine = createMachine(config).provide({ guards, actors })
  const actor = createActor(machine).start()
  const found = events.map((type) => {
    actor.send({ type })
    return actor.getSnapshot()._nodes.filter((node) => node.parent)
      .map((node) => node.path.join('.')).sort()
  })
  actor.stop()
  return found
})
console.log(JSON.stringify(out))
"""


@pytest.mark.slow
def test_from_xstate_examples_take_the_steps_of_xstate(tmp_path: Path) -> None:
    """Machines of version 5 are in the same states there, whatever these are called here."""
    given = []
    for name, (machine, events, _, _) in EXAMPLES.items():
        if "version 4" not in name:
            given.append((machine, [theirs(event, machine["id"]) for event in events]))
    script = tmp_path / "examples.mjs"
    script.write_text(IMPORTED)

    found = json.loads(run_node("xstate", script, [], given=json.dumps(given)))

    index = 0
    for name, (machine, events, _, _) in EXAMPLES.items():
        if "version 4" in name:
            continue
        document = from_xstate(json.dumps(machine), lost=[])
        stepper = Compiled(document).stepper()
        stepper.begin()
        for event, states in zip(events, found[index], strict=True):
            fields = {key: key != "is_broken_holds" for key in document.events[event].data}
            stepper.step(event, fields)
            ours = len([state for state in stepper.configuration if state != machine["id"]])
            last = {state.rpartition(".")[2] for state in states}
            assert ours == len(states), (name, event, states, stepper.configuration)
            assert all(any(word in state for state in stepper.configuration) for word in last)
        index += 1


def theirs(event: str, machine: str) -> str:
    """Return the name that XState gives to an event of ours."""
    if "_after_" in event:
        state, _, delay = event.partition("_after_")
        return f"xstate.after.{delay}.{machine}.{state}"
    return event.replace("done.invoke.", "xstate.done.actor.0.fetch.loading#").replace(
        "error.invoke.", "xstate.error.actor.0.fetch.loading#"
    ).partition("#")[0]  # fmt: skip
