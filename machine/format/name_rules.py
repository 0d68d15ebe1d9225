"""Rules for names in a chart document: declared once, used where they mean something, no shadowing.

These rules need the whole document; `parse` has checked its shape before.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping
from keyword import iskeyword
from typing import Any

from ..document import Document, Value, as_list, split_words, state_path
from ..effects import CancelActivity, CancelTimer, StartActivity, StartTimer, describe
from ..errors import ChartError
from .expressions import fault, reads
from .expressions import parse as parse_expression
from .hints import choices, meant
from .structure_rules import is_the_librarys, structure_problems

#: Names that the generated context or python-statemachine's own callbacks already use.
RESERVED = frozenset(
    {
        "chart_document", "event", "event_data", "listeners", "machine", "max", "min", "model",
        "out", "parameters", "ran", "receive", "restore", "self", "source", "state", "target",
        "transition", "v", "values",
    }
)  # fmt: skip
WAS = "was_"
_DONE = "done.state."


class AbsenceError(ChartError):
    """Something is missing or unused; it may be a consequence of another problem."""


def problems_of(document: Document) -> Iterator[ChartError]:
    """Yield the problems of names in *document*."""
    yield from _name_problems(document)
    yield from _clock_problems(document)
    yield from _expression_problems(document)
    yield from _field_problems(document)
    yield from _promise_problems(document)
    yield from structure_problems(document)


def transitions_of(document: Document) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Yield ``(path, state id, transition)`` for every transition in document order."""
    for name, definition, above in document.states():
        path = state_path(name, above)
        for index, item in enumerate(definition.get("transitions") or ()):
            yield f"{path}.transitions[{index}]", name, item
        for history, body in (definition.get("history") or {}).items():
            for index, item in enumerate((body or {}).get("transitions") or ()):
                yield f"{path}.history.{history}.transitions[{index}]", history, item


def history_ids(document: Document) -> dict[str, str]:
    """Return the ids of all history states, each with its parent state."""
    return {
        history: name
        for name, definition, _ in document.states()
        for history in definition.get("history") or {}
    }


def uses(document: Document) -> Iterator[tuple[str, str, str]]:
    """Yield ``(section, name, path)`` of each use of an event, action or guard in the chart."""
    for name, definition, above in document.states():
        where = state_path(name, above)
        for key in ("enter", "exit"):
            yield from _listed("actions", definition.get(key), f"{where}.{key}")
    for where, _, item in transitions_of(document):
        for event in split_words(item.get("event")):
            yield "events", event, f"{where}.event"
        for key in ("on", "before", "after"):
            yield from _listed("actions", item.get(key), f"{where}.{key}")
        for key in ("cond", "unless"):
            yield from _listed("guards", item.get(key), f"{where}.{key}")
    for name, action in document.actions.items():
        for event in action.raises:
            yield "events", event, f"actions.{name}.raise"


def _listed(section: str, value: Any, where: str) -> Iterator[tuple[str, str, str]]:
    is_list = isinstance(value, (list, tuple))
    for index, name in enumerate(as_list(value)):
        yield section, name, f"{where}[{index}]" if is_list else where


def _name_problems(document: Document) -> Iterator[ChartError]:
    ids = {name for name, _, _ in document.states()}
    declared: dict[str, Iterable[str]] = {
        "events": document.events, "actions": document.actions, "guards": document.guards,
    }  # fmt: skip
    used: dict[str, set[str]] = {section: set() for section in declared}
    for section, name, where in uses(document):
        if name in used[section] or (name.startswith(_DONE) and name[len(_DONE) :] in ids):
            continue
        used[section].add(name)
        if name not in declared[section]:
            one = section.removesuffix("s")
            known = f"declare it under `{section}`; known: {choices(declared[section])}"
            hint = meant(name, declared[section]) or "; "
            yield ChartError(where, f"unknown {one} {name!r}{hint} {known}".replace(";  ", "; "))
    for section, names in declared.items():
        for name in names:
            if name not in used[section]:
                yield AbsenceError(f"{section}.{name}", "declared but not used in the chart")
    for name in document.events:
        words = name.split(".")
        if not all(word.isidentifier() for word in words) or is_the_librarys(name):
            yield ChartError(f"events.{name}", "expected words joined by dots, not a library name")
    kinds: dict[str, Iterable[str]] = {
        "data": document.data,
        "parameters": document.parameters,
        "guards": document.guards,
        "actions": document.actions,
        "event fields": sorted(document.event_fields()),
    }
    owner: dict[str, str] = {}
    for kind, names in kinds.items():
        for name in names:
            is_word = name.isidentifier() and not iskeyword(name)
            if not is_word or name in RESERVED or name.startswith((WAS, "_")):
                yield ChartError(f"{kind}.{name}", "expected an identifier that is not reserved")
            elif kind in ("guards", "actions") and is_the_librarys(name):
                why = "python-statemachine uses this name itself; choose another"
                yield ChartError(f"{kind}.{name}", why)
            if name in owner:
                yield ChartError(f"{kind}.{name}", f"name also used among the {owner[name]}")
            owner[name] = kind


def started(document: Document) -> tuple[frozenset[str], frozenset[str]]:
    """Return the names of all activities and of all timers that actions start."""
    effects = [effect for action in document.actions.values() for effect in action.effects]
    return (
        frozenset(effect.activity for effect in effects if isinstance(effect, StartActivity)),
        frozenset(effect.timer for effect in effects if isinstance(effect, StartTimer)),
    )


def _clock_problems(document: Document) -> Iterator[ChartError]:
    """Yield activities and timers that are canceled or awaited but never started."""
    activities, timers = started(document)
    for name in sorted(activities & timers):
        where = _first_start(document, name)
        yield ChartError(where, f"{name!r} is the name of an activity and of a timer")
    for name, event in document.events.items():
        known = activities if event.origin == "activity" else timers
        if event.of and event.of not in known:
            yield AbsenceError(f"events.{name}.of", f"no action starts {event.origin} {event.of!r}")
    for name, action in document.actions.items():
        for effect in action.effects:
            if isinstance(effect, CancelActivity) and effect.activity not in activities:
                yield ChartError(
                    f"actions.{name}", f"no action starts activity {effect.activity!r}"
                )
            if isinstance(effect, CancelTimer) and effect.timer not in timers:
                yield ChartError(f"actions.{name}", f"no action starts timer {effect.timer!r}")
    answered = {event.of for event in document.events.values() if event.origin == "timer"}
    for name in sorted(timers - answered):
        why = f"no event says that timer {name!r} ran out; declare one: origin: timer, of: {name}"
        yield AbsenceError(_first_start(document, name), why)
    for name in sorted(set(document.timers) - timers):
        yield AbsenceError(f"timers.{name}", f"no action starts timer {name!r}")
    raised = {event for action in document.actions.values() for event in action.raises}
    for name, event in document.events.items():
        if event.origin == "chart" and name not in raised:
            yield AbsenceError(f"events.{name}", "no action raises this event of the chart")


def _first_start(document: Document, clock: str) -> str:
    """Return the path of the first action that starts activity or timer *clock*."""
    return next(
        f"actions.{name}"
        for name, action in document.actions.items()
        if any(
            isinstance(effect, (StartActivity, StartTimer)) and _clock(effect) == clock
            for effect in action.effects
        )
    )


def _clock(effect: StartActivity | StartTimer) -> str:
    return effect.activity if isinstance(effect, StartActivity) else effect.timer


def scope(document: Document) -> frozenset[str]:
    """Return the names that guards and actions may read."""
    return frozenset({*document.data, *document.parameters, *document.event_fields()})


def parsed(document: Document, text: str, where: str) -> ast.expr:
    """Parse *text* with all names of *document* in scope."""
    return parse_expression(text, scope(document), where)


def expressions(document: Document) -> Iterator[tuple[str, str, frozenset[str]]]:
    """Yield ``(path, text, readable names)`` of every expression in *document*."""
    names = scope(document)
    for guard, text in document.guards.items():
        yield f"guards.{guard}", text, names
    for name, action in document.actions.items():
        if action.when is not None:
            yield f"actions.{name}.when", action.when, names
        for target, text in action.assigns.items():
            yield f"actions.{name}.set.{target}", text, names
    both = names | {f"{WAS}{name}" for name in document.data}
    for index, always in enumerate(document.promises.always):
        for key, found in (("if", always.given), ("then", always.then)):
            if found is not None:
                yield f"promises.always[{index}].{key}", found, both


def _expression_problems(document: Document) -> Iterator[ChartError]:
    domains = _domains(document)
    for where, text, names in expressions(document):
        try:
            target = where.rpartition(".set.")[2] if ".set." in where else ""
            why = fault(parse_expression(text, names, where), domains, domains.get(target))
        except ChartError as error:
            yield error
        else:
            if why:
                yield ChartError(where, f"{text!r} {why}")
    for name, action in document.actions.items():
        for target in sorted(set(action.assigns) - set(document.data)):
            yield ChartError(f"actions.{name}.set.{target}", "expected the name of a datum")


def _domains(document: Document) -> dict[str, tuple[Value, ...]]:
    """Return name -> values that it can have; for counts, a few of them."""
    found: dict[str, list[Value]] = {}
    for data in (document.data, document.parameters):
        for name, datum in data.items():
            is_count = type(datum.initial) is int
            found[name] = list(datum.values or ((0, 1, 2) if is_count else (datum.initial,)))
    for event in document.events.values():
        for name, domain in event.data.items():
            found.setdefault(name, []).extend(domain)
    domains = {name: tuple(values) for name, values in found.items()}
    return domains | {f"{WAS}{name}": domains[name] for name in document.data}


def _fields_read(document: Document) -> dict[str, frozenset[str]]:
    """Return the event fields that each guard and action reads."""
    fields = document.event_fields()
    found: dict[str, frozenset[str]] = {}
    for where, text, names in expressions(document):
        section, name, *_ = where.split(".")
        if section != "promises":
            try:
                read = reads(parse_expression(text, names, where)) & fields
            except ChartError:
                read = frozenset()
            found[name] = found.get(name, frozenset()) | read
    return found


def _field_problems(document: Document) -> Iterator[ChartError]:
    """Yield uses of an event's field in places where the event may lack it.

    A field exists for one event only; read elsewhere, it would be hidden memory.
    """
    read = _fields_read(document)
    for name, definition, above in document.states():
        for key in ("enter", "exit"):
            for action in as_list(definition.get(key)):
                for field in sorted(read.get(action, ())):
                    where = f"{state_path(name, above)}.{key}"
                    yield ChartError(where, f"{action!r} reads {field!r}, which only events have")
    for where, _, item in transitions_of(document):
        events = [
            document.events[n] for n in split_words(item.get("event")) if n in document.events
        ]
        for key in ("cond", "unless", "on", "before", "after"):
            for used in as_list(item.get(key)):
                for field in sorted(read.get(used, ())):
                    if not events or not all(field in event.data for event in events):
                        yield ChartError(
                            f"{where}.{key}", f"{used!r} reads {field!r}, which its event lacks"
                        )


def _promise_problems(document: Document) -> Iterator[ChartError]:
    promises = document.promises
    ids = frozenset(name for name, _, _ in document.states())
    events, data = frozenset(document.events), frozenset(document.data)
    activities, timers = started(document)
    asked = frozenset(
        describe(effect) for action in document.actions.values() for effect in action.effects
    )
    uses: list[tuple[str, str, Iterable[str], frozenset[str]]] = [
        ("rest", "state", promises.rest, ids),
        ("quiet", "state", promises.quiet, ids),
        ("serving", "state", promises.serving, ids),
        ("stopping", "state", [promises.stopping] if promises.stopping else [], ids),
        ("unsure", "activity or timer", promises.unsure, activities | timers),
        ("reliable", "activity", promises.reliable, activities),
        ("patience", "event", promises.patience, events),
    ]
    for index, pair in enumerate(promises.pairs):
        at = f"pairs[{index}]"
        uses.append((at, "state", (pair.begin, pair.end, *pair.by), ids))
        uses.append((at, "event", pair.unless | pair.also, events))
    if promises.requests is not None:
        r = promises.requests
        uses.append(("requests", "event", (r.ask, r.give_up, r.done), events))
        uses.append(("requests", "datum", (r.waiting, r.served), data))
    if promises.process is not None:
        p = promises.process
        uses.append(("process", "activity", (p.activity, *p.needed_by), activities))
        uses.append(("process", "event", (p.up, p.found, *p.down), events))
    for index, always in enumerate(promises.always):
        at = f"always[{index}]"
        states = always.before | always.into | always.inside | always.to | always.never
        uses.append((at, "state", states, ids))
        uses.append((at, "event", always.events, events))
        uses.append((at, "effect", always.asks | always.spares, asked))
        uses.append((at, "activity or timer", always.live | always.dead, activities | timers))
    for key, kind, names, known in uses:
        for name in sorted(set(names) - known - {""}):
            yield ChartError(f"promises.{key}", f"unknown {kind} {name!r}{meant(name, known)}")
