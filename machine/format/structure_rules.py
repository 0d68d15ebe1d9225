"""Rules for the states of a chart: ids, initial states, targets, choices, reachability."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from ..document import Document, as_list, split_words, state_path, walk
from ..errors import ChartError
from .hints import meant

_SLOTS = ("on", "before", "after")


class UnreachableError(ChartError):
    """A state that nothing leads to, perhaps because a transition to it could not be read."""


def structure_problems(document: Document) -> Iterator[ChartError]:
    """Yield the problems of the states of *document*."""
    yield from _state_problems(document)
    broken = list(_target_problems(document))
    yield from broken
    yield from _choice_problems(document)
    if not broken:
        yield from _reach_problems(document)
        yield from _end_problems(document)


def is_the_librarys(name: str) -> bool:
    """Return True if python-statemachine uses *name* itself."""
    from statemachine import StateChart  # slow to import; the shipped chart was checked before

    return hasattr(StateChart, name)


@cache
def names_of_states() -> frozenset[str]:
    """Return the names that no state inside of another one can have.

    python-statemachine makes such a state an attribute of the outer one, in place of its own.
    """
    from statemachine import State  # as slow as above

    return frozenset({*dir(State), *vars(State("any"))})


def _state_problems(document: Document) -> Iterator[ChartError]:
    seen: dict[str, str] = {}
    yield from _initial_problems("chart.states", document.chart["states"])
    for name, definition, above in document.states():
        where = state_path(name, above)
        histories = {history: f"{where}.history.{history}" for history in _histories(definition)}
        for used, at in {name: where, **histories}.items():
            if used in seen:
                yield ChartError(at, f"state id {used!r} is also used at {seen[used]}")
            seen[used] = at
            is_inside = above or used in histories
            is_taken = is_inside and used in names_of_states()
            if is_taken or is_the_librarys(used) or not used.isidentifier():
                yield ChartError(at, f"{used!r} is not an identifier, or the library's own name")
        inner = definition.get("states") or {}
        if inner and not definition.get("parallel"):
            yield from _initial_problems(f"{where}.states", inner)
        if definition.get("final") and (inner or definition.get("transitions")):
            yield ChartError(where, "a final state has neither states nor transitions")
        for key in ("parallel", "history"):
            if definition.get(key) and not inner:
                yield ChartError(f"{where}.{key}", "only a state with states inside can have this")


def _histories(definition: Mapping[str, Any]) -> Mapping[str, Any]:
    found: Mapping[str, Any] = definition.get("history") or {}
    return found


def _initial_problems(where: str, states: Mapping[str, Any]) -> Iterator[ChartError]:
    initial = [name for name, body in states.items() if (body or {}).get("initial")]
    if len(initial) > 1:
        found = ", ".join(initial)
        where = f"{where}.{initial[1]}.initial"
        yield ChartError(where, f"expected one state marked initial, got {found}")
    elif not initial and states:
        first = next(iter(states))
        why = f"expected one state marked initial, got none; add `initial: true`, as to {first!r}"
        yield ChartError(where, why)


def _all_transitions(
    document: Document,
) -> Iterator[tuple[str, str, Mapping[str, Any], Mapping[str, Any]]]:
    """Yield ``(path, state or history id, transition, definition of the state)``."""
    for name, definition, above in document.states():
        path = state_path(name, above)
        for index, item in enumerate(definition.get("transitions") or ()):
            yield f"{path}.transitions[{index}]", name, item, definition
        for history, body in _histories(definition).items():
            for index, item in enumerate((body or {}).get("transitions") or ()):
                yield f"{path}.history.{history}.transitions[{index}]", history, item, definition


def _target_problems(document: Document) -> Iterator[ChartError]:
    histories = {h for _, definition, _ in document.states() for h in _histories(definition)}
    inside = {
        name: {n for n, _, _ in walk(body.get("states") or {})}
        for name, body, _ in document.states()
    }
    for where, source, item, _ in _all_transitions(document):
        targets = split_words(item.get("target"))
        for target in targets:
            if target not in inside and target not in histories:
                hint = meant(target, {*inside, *histories})
                yield ChartError(f"{where}.target", f"unknown state {target!r}{hint}")
        if item.get("internal") and not set(targets) <= inside.get(source, set()):
            yield ChartError(f"{where}.internal", f"its target is not inside {source!r}")
        if source in histories:
            extra = sorted(set(item) - {"target", "on", "description", "tags"})
            if extra or not targets:
                yield ChartError(where, "a history's transition has a target, and may have `on`")
        elif not item.get("event") and not targets:
            yield ChartError(where, "without event and target it would be taken for ever")


def _choice_problems(document: Document) -> Iterator[ChartError]:
    """Yield the states that only guards can leave, and in which no guard can change.

    Data change while a state is active only by transitions without target of a state around it;
    inside a parallel state, those of another region count too. Cycles of eventless transitions are
    not judged here.
    """
    definitions = {name: definition for name, definition, _ in document.states()}
    for name, definition, above in document.states():
        transitions = definition.get("transitions") or ()
        is_choice = transitions and all(
            not item.get("event") and (item.get("cond") or item.get("unless"))
            for item in transitions
        )
        around = [definitions[outer] for outer in above]
        if not is_choice or definition.get("states") or any(d.get("parallel") for d in around):
            continue
        may_change = any(
            not item.get("target") and any(as_list(item.get(slot)) for slot in _SLOTS)
            for outer in around
            for item in outer.get("transitions") or ()
        )
        if not may_change and name not in _eventless_from(definitions, name):
            why = (
                f"choice without else: if no guard of {name!r} holds, none will ever hold; add a "
                "last transition without `cond`"
            )
            yield ChartError(f"{state_path(name, above)}.transitions", why)


def _eventless_from(definitions: Mapping[str, Mapping[str, Any]], start: str) -> set[str]:
    """Return the states to which eventless transitions lead from *start*, one after another."""
    found: set[str] = set()
    todo = [start]
    while todo:
        for item in definitions.get(todo.pop(), {}).get("transitions") or ():
            if not item.get("event"):
                new = set(split_words(item.get("target"))) - found
                found |= new
                todo += new
    return found


def _reach_problems(document: Document) -> Iterator[ChartError]:
    for name, above in unreachable_states(document):
        yield UnreachableError(
            state_path(name, above),
            f"state {name!r} is unreachable: no transition leads to it; add one, or remove it",
        )


def unreachable_states(document: Document) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield the states that no sequence of transitions enters, whatever the guards say.

    Each comes with its ancestors, and without the states inside it.
    """
    definitions = {name: (definition, above) for name, definition, above in document.states()}
    histories = {
        history: (name, body)
        for name, (definition, _) in definitions.items()
        for history, body in _histories(definition).items()
    }
    reached: set[str] = set()
    todo = [n for n, body in document.chart["states"].items() if (body or {}).get("initial")]
    while todo:
        name = todo.pop()
        if name in histories:
            parent, body = histories[name]
            todo += _targets(body or {})
            name = parent
        if name in reached:
            continue
        reached.add(name)
        definition, above = definitions[name]
        todo += [outer for outer in above if outer not in reached]
        todo += _targets(definition)
        inner = definition.get("states") or {}
        todo += [n for n, b in inner.items() if definition.get("parallel") or _is_first(b)]
        for outer in above:  # a target inside a parallel state enters its other regions too
            if definitions[outer][0].get("parallel"):
                todo += [n for n in definitions[outer][0]["states"] if n not in reached]
    for name, (_, above) in definitions.items():
        if name not in reached and (not above or above[-1] in reached):
            yield name, above


def _end_problems(document: Document) -> Iterator[ChartError]:
    """Yield the top-level states from which no transition leads towards a final one.

    python-statemachine refuses them in a chart that has a final state.
    """
    tops = document.chart["states"]
    top_of = {name: (*above, name)[0] for name, _, above in document.states()}
    leads: dict[str, set[str]] = {name: set() for name in tops}
    for name, definition, _ in document.states():
        top_of.update(dict.fromkeys(_histories(definition), top_of[name]))
    for _, source, item, _ in _all_transitions(document):
        leads[top_of[source]] |= {top_of[target] for target in split_words(item.get("target"))}
    ending = {name for name, body in tops.items() if (body or {}).get("final")}
    if not ending:
        return
    while new := {name for name, to in leads.items() if name not in ending and to & ending}:
        ending |= new
    for name in tops:
        if name not in ending:
            yield UnreachableError(
                f"chart.states.{name}",
                f"no way leads from {name!r} to a final state; add a transition towards one",
            )


def _is_first(body: Mapping[str, Any] | None) -> bool:
    return bool((body or {}).get("initial"))


def _targets(definition: Mapping[str, Any]) -> list[str]:
    return [
        target
        for item in definition.get("transitions") or ()
        for target in split_words(item.get("target"))
    ]
