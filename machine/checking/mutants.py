"""Single-edit mutants of a chart, to measure how strong its promises are.

Every transition is deleted or gets another target, and every use of an action or a guard is
removed. A useful promise is broken by some mutants. A mutant that breaks no promise is either
equivalent, which a comparison of the two explorations proves, or shows that a promise is missing.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from dataclasses import replace
from typing import Any

from ...dataclass import dataclass
from ..compiled import Compiled
from ..document import Document, Value, as_list, walk
from ..effects import CancelActivity, CancelTimer, Effect, RejectAll
from .checked_step import CheckedStep
from .explore import Bounds, Environment, Input, Reactor, Situation, parameter_sets

_SLOTS = ("before", "on", "after")
_GUARDS = ("cond", "unless")


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """A chart with one edit.

    Attributes:
        name: The edit, in words.
        document: The edited chart; its promises and names are unchanged.
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
    """Yield other targets for a transition: the next atomic state, and none."""
    target = str(item.get("target") or "")
    inside = [
        name
        for name, body, above in document.states()
        if not body.get("states") and (name in (target, state) or target in above)
    ]
    start = leaves.index(inside[-1]) + 1 if inside else 0
    others = [name for name in leaves[start:] + leaves[:start] if name not in (target, state)]
    yield from others[:1]
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


def is_equivalent(
    document: Document,
    other: Document,
    *,
    bounds: Bounds | None = None,
    parameters: Iterable[Mapping[str, Value]] | None = None,
) -> bool:
    """Return True if no observer can distinguish two charts with the same names.

    Both are walked side by side. Canceling what does not run, rejecting no request, and the data of
    a chart that has ended cannot be observed.

    Args:
        document: One chart.
        other: The other chart.
        bounds: As for `check`.
        parameters: Sets under which they are compared; None means all.

    Raises:
        ChartError: One of them cannot be compiled.
    """
    bounds = bounds or Bounds()
    ours, theirs = Compiled(document), Compiled(other)
    return all(
        _walk_together(_Side(ours, bounds, values), _Side(theirs, bounds, values))
        for values in parameters or parameter_sets(document, bounds)
    )


class _Side:
    """One of two charts that are walked side by side."""

    def __init__(self, compiled: Compiled, bounds: Bounds, parameters: Mapping[str, Value]) -> None:
        self._reactor = Reactor(compiled.stepper(**parameters))
        first = self._reactor.begin.configuration
        self.environment = Environment(compiled.document, bounds, first)
        self.world = CheckedStep(
            compiled.document, self._reactor, self.environment, bounds, parameters
        )

    def step(self, now: Situation, what: Input) -> tuple[Situation | None, list[Effect]]:
        """Return the situation after *what*, and the observable effects."""
        after, _ = self.world.step(now, what)
        if after is not None and self.world.is_final(after):
            after = after._replace(values=())
        reaction = self._reactor.react(now.configuration, now.values, now.memory, what)
        seen: list[Effect] = []
        waiting = self.environment.counts(now.values)[0] > 0
        for effect in reaction.effects if reaction is not None else ():
            if effect == RejectAll():
                if waiting:
                    seen.append(effect)
                waiting = False
            elif not isinstance(effect, (CancelActivity, CancelTimer)):
                seen.append(effect)
        return after, seen


def _walk_together(ours: _Side, theirs: _Side) -> bool:
    start, _ = ours.world.start()
    if theirs.world.start()[0] != start:
        return False
    seen = {start}
    todo = [start]
    while todo:
        now = todo.pop()
        for what in ours.environment.inputs(now) if not ours.world.is_final(now) else ():
            after, effects = ours.step(now, what)
            if theirs.step(now, what) != (after, effects):
                return False
            if after is not None and after not in seen:
                seen.add(after)
                todo.append(after)
    return True
