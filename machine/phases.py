"""Further phases of a lifecycle: a state with a hook point of its own, behind one that runs hooks.

A phase is a copy of the state before it, as far as failures, stops and kills go: whatever ends that
state early ends the phase the same way. The promises that name that state cover the phase too.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from .document import Document, as_list, split_words, walk
from .effects import CancelActivity, StartActivity
from .errors import ChartError
from .format.parse import from_mapping


def add_phase(document: Document, name: str, *, after: str, point: str) -> Document:
    """Return *document* with a further state that runs the hooks of a point of its own.

        chart = add_phase(lifecycle(), "warming", after="after_healthy", point="warmUp")

    State *after* leads to the new state once its hooks are done, and that state leads where *after*
    led. Stop, shutdown, kill, a request that is given up and a hook that fails end the phase as
    they end *after*.

    Args:
        document: The chart, such as the shipped one; it is not changed.
        name: Id of the new state.
        after: State that runs hooks, such as ``before_start``, ``after_start``, ``after_healthy``
            or an earlier phase.
        point: Name of the hook point, for ``ServiceSpec.hooks``; no other state runs it.

    Raises:
        ChartError: *after* does not run hooks, *name* or *point* exists already, or is no name.
    """
    states = {each: body for each, body, _ in walk(document.chart["states"])}
    if name in states:
        raise ChartError(f"phase {name}", "expected a new state; there is one of this name")
    base = _base(document, states, after, f"phase {name}")
    if point in _points(document):
        raise ChartError(f"phase {name}", f"expected a new hook point; {point} exists already")
    raw = copy.deepcopy(dict(document.source))
    action = f"run_{re.sub(r'(?<=[a-z0-9])(?=[A-Z])', '_', point).lower()}"
    if action in document.actions:
        action = f"{action}_in_{name}"
    start = {"effect": "activity.start", "activity": base.activity, "point": point}
    raw["actions"] = {**raw["actions"], action: {"do": start}}
    _insert(raw["chart"]["states"], document, base, after, name, action)
    promises = dict(raw.get("promises") or {})
    promises["always"] = [
        changed for each in promises.get("always") or ()
        for changed in _promise(each, base, after, name)
    ] + [{"why": f"{name} runs its hooks", "in": [name], "live": [base.activity]}]  # fmt: skip
    raw["promises"] = promises
    return from_mapping(raw)


class _Base(NamedTuple):
    """How a state runs hooks.

    Attributes:
        activity: Activity that runs them.
        done: Events by which it succeeds.
        exits: Actions on exit that cancel the activity.
    """

    activity: str
    done: frozenset[str]
    exits: list[str]


def _base(document: Document, states: Mapping[str, Any], after: str, where: str) -> _Base:
    """Return how state *after* runs hooks."""
    if after not in states:
        raise ChartError(where, f"unknown state {after!r}; known: {', '.join(sorted(states))}")
    body = states[after] or {}
    for activity in _hooks(document, body):
        done = frozenset(
            event
            for item in body.get("transitions") or ()
            if item.get("target")
            for event in _events(item)
            if _ends(document, event, activity)
        )
        exits = [
            action for action in as_list(body.get("exit"))
            if CancelActivity(activity) in document.actions[action].effects
        ]  # fmt: skip
        if done:
            return _Base(activity, done, exits)
    usable = [
        each for each, other in states.items()
        for activity in _hooks(document, other or {})
        if any(_ends(document, e, activity) for t in other["transitions"] for e in _events(t))
    ]  # fmt: skip
    known = ", ".join(usable) or "none"
    raise ChartError(where, f"{after} runs no hooks that it waits for; states that do: {known}")


def _hooks(document: Document, body: Mapping[str, Any]) -> list[str]:
    """Return the activities with a hook point that the entry into a state starts."""
    return [
        effect.activity
        for action in as_list(body.get("enter"))
        for effect in document.actions[action].effects
        if isinstance(effect, StartActivity) and effect.point
    ]


def _points(document: Document) -> set[str]:
    """Return all hook points of *document*."""
    return {
        effect.point
        for action in document.actions.values()
        for effect in action.effects
        if isinstance(effect, StartActivity)
    }


def _events(item: Mapping[str, Any]) -> tuple[str, ...]:
    return split_words(item.get("event"))


def _ends(document: Document, event: str, activity: str) -> bool:
    """Return True if *event* is the success of *activity*."""
    declared = document.events.get(event)
    return declared is not None and declared.of == activity and declared.on != "error"


def _is_kept(document: Document, event: str, activity: str) -> bool:
    """Return True if *event* can come in a phase that runs *activity* and nothing else."""
    declared = document.events.get(event)
    if declared is None or declared.origin == "timer":
        return False
    return declared.origin != "activity" or declared.of == activity


def _insert(
    top: dict[str, Any], document: Document, base: _Base, after: str, name: str, action: str
) -> None:
    """Put state *name* behind *after* into the states *top*, which are changed."""
    home = next(level for level in _levels(top) if after in level)
    body = home[after]
    onward, kept, copied = [], [], []
    for item in body.get("transitions") or ():
        events = _events(item)
        done = [event for event in events if event in base.done]
        others = [event for event in events if event not in base.done]
        if done:
            onward.append({**item, "event": " ".join(done)})
        if others or not events:
            kept.append({**item, "event": " ".join(others)} if done else item)
        ours = [event for event in others if _is_kept(document, event, base.activity)]
        if ours:
            copied.append(copy.deepcopy({**item, "event": " ".join(ours)}))
    body["transitions"] = [{"event": " ".join(sorted(base.done)), "target": name}, *kept]
    phase: dict[str, Any] = {"enter": action, "transitions": [*onward, *copied]}
    if base.exits:
        phase["exit"] = base.exits
    items = list(home.items())
    at = list(home).index(after) + 1
    home.clear()
    home.update([*items[:at], (name, phase), *items[at:]])


def _levels(states: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the mappings of states, from the outermost inward."""
    inner = [body["states"] for _, body, _ in walk(states) if body and body.get("states")]
    return [states, *inner]


def _promise(
    promise: Mapping[str, Any], base: _Base, after: str, name: str
) -> list[dict[str, Any]]:
    """Return *promise* for the chart with state *name* behind *after*.

    What it says about the end of *after* by its hooks is said about *name*, and the rest about
    both.
    """
    both = {
        key: [*as_list(promise[key]), name]
        for key in ("from", "in")
        if after in as_list(promise.get(key)) and _covers(promise, key, base)
    }
    events = as_list(promise.get("event"))
    done = [event for event in events if event in base.done]
    if "from" not in both or not done or not promise.get("to"):
        return [{**promise, **both}]
    others = [event for event in events if event not in base.done]
    later = [each for each in both["from"] if each != after]
    first = [{**promise, **both, "event": others}] if others else []
    return [*first, {**promise, **both, "event": done, "from": later}]


def _covers(promise: Mapping[str, Any], key: str, base: _Base) -> bool:
    """Return True if *promise* about a state that runs hooks holds for a phase behind it too.

    A phase has no timers, so that what must be running can be its hooks only.
    """
    return key == "from" or set(as_list(promise.get("live"))) <= {base.activity}
