"""Digests of a document: which charts behave alike, and which were checked alike.

A snapshot carries the digest of its chart. It covers whatever a step depends on, and neither texts
for readers nor the order in which names are declared. Guards and actions count by what they do, so
a guard in the place of a name has the digest of a named one.

Source: SHA-256 of JSON text without spaces. The field lists are written down here, so that a field
which is added to a document later does not change the digests that are stored.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from hashlib import sha256
from typing import Any

from .document import ActionDecl, Always, Document, EventDecl, as_list, split_words

_ACTIONS = ("enter", "exit")
_ACTIONS_OF_TRANSITION = ("before", "on", "after")
_FLAGS = ("initial", "final", "parallel")
_SETS = ("rest", "quiet", "serving", "unsure", "reliable", "patience")
#: Fields that the digests of the first form covered, texts for readers among them.
_FIRST_FORM = {
    "Document": (
        "name", "data", "parameters", "events", "guards", "actions", "promises", "timers",
        "version", "payload", "chart",
    ),
    "Datum": ("initial", "values"),
    "EventDecl": ("origin", "of", "on", "data", "payload", "description"),
    "ActionDecl": ("effects", "assigns", "when", "raises", "description"),
    "Promises": (
        "rest", "quiet", "serving", "pairs", "requests", "process", "stopping", "unsure",
        "reliable", "patience", "always",
    ),
    "Pair": ("begin", "end", "by", "unless"),
    "Process": ("activity", "up", "down", "needed_by"),
    "Always": (
        "why", "events", "before", "into", "inside", "given", "to", "never", "stays", "then",
        "asks", "spares", "live", "dead",
    ),
}  # fmt: skip


def digest_of(document: Document) -> str:
    """Return the digest of what *document* does, in hexadecimal."""
    return _hashed(_behavior(document))


def proof_digest_of(document: Document) -> str:
    """Return the digest of what *document* does and promises, in hexadecimal."""
    promises = document.promises
    return _hashed(
        [
            _behavior(document),
            [sorted(getattr(promises, name)) for name in _SETS],
            [[p.begin, p.end, *map(sorted, (p.by, p.unless, p.also))] for p in promises.pairs],
            _plain(promises.requests), _plain(promises.process), promises.stopping,
            [_rule(rule) for rule in promises.always],
        ]
    )  # fmt: skip


def first_digest_of(document: Document) -> str:
    """Return the digest that the first form of snapshots has for *document*, in hexadecimal.

    It covers descriptions, the order of names and promises too.
    """
    return _hashed({name: _plain(getattr(document, name)) for name in _FIRST_FORM["Document"]})


def _hashed(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _plain(value: Any) -> Any:
    """Return *value* as JSON has it; mappings as pairs, since their order matters."""
    if is_dataclass(value) and not isinstance(value, type):
        kind = type(value).__name__
        names = _FIRST_FORM.get(kind) or tuple(field.name for field in fields(value))
        return [kind, *(_plain(getattr(value, name)) for name in names)]
    if isinstance(value, Mapping):
        return [[name, _plain(inner)] for name, inner in value.items()]
    if isinstance(value, frozenset):
        return sorted(value)
    return [_plain(inner) for inner in value] if isinstance(value, (list, tuple)) else value


# ---- what behaves
def _behavior(document: Document) -> list[Any]:
    return [
        "behavior", document.name, document.version,
        [[name, _plain(datum)] for name, datum in sorted(document.data.items())],
        [[name, _plain(datum)] for name, datum in sorted(document.parameters.items())],
        [[name, *_event(event)] for name, event in sorted(document.events.items())],
        sorted(document.timers.items()),
        sorted(document.promises.unsure),  # an activity that is not there must return an event
        list(_States(document).of(document.chart["states"])),
    ]  # fmt: skip


def _event(event: EventDecl) -> list[Any]:
    data = [[name, list(domain)] for name, domain in sorted(event.data.items())]
    return [event.origin, event.of, event.on, data, event.payload]


class _States:
    """Describes states by what they do."""

    def __init__(self, document: Document) -> None:
        self._guards = document.guards
        self._actions = {name: _action(action) for name, action in document.actions.items()}

    def of(self, states: Mapping[str, Any]) -> Iterator[list[Any]]:
        """Yield what each of *states* does; their order is that of their regions."""
        for name, raw in states.items():
            state = raw or {}
            yield [
                name, [bool(state.get(key)) for key in _FLAGS],
                *(self._ran(state.get(key)) for key in _ACTIONS),
                [self._transition(item) for item in state.get("transitions") or ()],
                [
                    [history, body.get("type") or "shallow",
                     [self._transition(item) for item in body.get("transitions") or ()]]
                    for history, body in (state.get("history") or {}).items()
                ],
                list(self.of(state.get("states") or {})),
            ]  # fmt: skip

    def _transition(self, item: Mapping[str, Any]) -> list[Any]:
        return [
            sorted(split_words(item.get("event"))), split_words(item.get("target")),
            self._conditions(item.get("cond")), self._conditions(item.get("unless")),
            *(self._ran(item.get(key)) for key in _ACTIONS_OF_TRANSITION),
            bool(item.get("internal")),
        ]  # fmt: skip

    def _ran(self, names: Iterable[str] | str | None) -> list[list[Any]]:
        return [self._actions[name] for name in as_list(names)]

    def _conditions(self, names: Iterable[str] | str | None) -> list[str]:
        return [self._guards.get(name, name) for name in as_list(names)]


def _action(action: ActionDecl) -> list[Any]:
    assigns = sorted(action.assigns.items())
    return [_plain(action.effects), assigns, action.when, list(action.raises)]


def _rule(rule: Always) -> list[Any]:
    sets = [sorted(getattr(rule, name)) for name in (
        "events", "before", "into", "inside", "to", "never", "asks", "spares", "live", "dead",
    )]  # fmt: skip
    return [*sets, rule.given, rule.then, rule.stays]
