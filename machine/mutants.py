"""Single-edit mutants of a chart: how good are its promises?

Every transition is deleted and led elsewhere, every use of an action and of a guard is left out.
A promise worth having is broken by some of them. A mutant that no promise refutes is either
equivalent, which comparing the two explorations proves, or shows a promise that is missing.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, MutableMapping
from dataclasses import dataclass, replace
from typing import Any

from .document import Document, as_list, walk

_SLOTS = ("before", "on", "after")
_GUARDS = ("cond", "unless")


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """A chart with one thing wrong.

    Attributes:
        name: What was changed, in words.
        document: The changed chart; its promises and all its names are the old ones.
    """

    name: str
    document: Document


def mutants(document: Document) -> Iterator[Mutant]:
    """Yield every single-edit mutant of *document*, in document order."""
    states = list(document.states())
    leaves = [name for name, body, _ in states if not body.get("states")]
    for name, body, _ in states:
        for key in ("enter", "exit"):
            for index, action in enumerate(as_list(body.get(key))):
                yield _mutant(document, f"{name}: no {action} on {key}", name, key, index)
        for index, item in enumerate(body.get("transitions") or ()):
            yield from _of_transition(document, name, index, item, leaves)


def _of_transition(
    document: Document, state: str, index: int, item: Mapping[str, Any], leaves: list[str]
) -> Iterator[Mutant]:
    label = f"{state}: {item.get('event') or 'at once'}"
    if item.get("target"):
        label += f" -> {item['target']}"
    guard = " and ".join(as_list(item.get("cond")))
    label += f" [{guard}]" if guard else ""

    def mutant(what: str, edit: MutableMapping[str, Any] | None) -> Mutant:
        chart = copy.deepcopy(dict(document.chart))
        transitions = _body(chart, state)["transitions"]
        if edit is None:
            del transitions[index]
        else:
            transitions[index] = edit
        return Mutant(name=f"{label}: {what}", document=replace(document, chart=chart))

    yield mutant("deleted", None)
    for target in _elsewhere(document, state, item, leaves):
        changed = {key: value for key, value in item.items() if key not in ("target", "internal")}
        if target:
            changed["target"] = target
        yield mutant(f"led to {target}" if target else "stays", changed)
    for key in (*_SLOTS, *_GUARDS):
        for position, used in enumerate(as_list(item.get(key))):
            rest = as_list(item.get(key))
            del rest[position]
            yield mutant(f"no {used} in {key}", {**item, key: rest})


def _elsewhere(
    document: Document, state: str, item: Mapping[str, Any], leaves: list[str]
) -> Iterator[str]:
    """Yield where else a transition could lead: to the next atomic state, and nowhere."""
    target = str(item.get("target") or "")
    inner = [
        name
        for name, body, above in document.states()
        if name == target or target in above
        if not body.get("states")
    ]
    start = leaves.index((inner or [state if state in leaves else leaves[0]])[-1])
    candidates = (leaves[(start + 1 + step) % len(leaves)] for step in range(len(leaves)))
    yield next(name for name in candidates if name != target and name != state)
    if target and item.get("event"):
        yield ""


def _mutant(document: Document, name: str, state: str, key: str, index: int) -> Mutant:
    chart = copy.deepcopy(dict(document.chart))
    body = _body(chart, state)
    actions = as_list(body[key])
    del actions[index]
    body[key] = actions
    return Mutant(name=name, document=replace(document, chart=chart))


def _body(chart: Mapping[str, Any], state: str) -> dict[str, Any]:
    return next(
        body for name, body, _ in walk(chart["states"]) if name == state and isinstance(body, dict)
    )
