"""The chart part of a document in python-statemachine's own dialect."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ..document import Document, as_list

#: Keys of states and transitions that python-statemachine's schema does not have.
_OURS = ("description", "tags")
_SLOTS = ("enter", "exit", "on", "before", "after")


def to_native(document: Document) -> dict[str, Any]:
    """Return the chart part of *document* as ``statemachine.io.load`` reads it.

    Guards and actions are names of methods of the model. An action that raises events is followed
    by them, as executable content.
    """
    raising = {name: decl.raises for name, decl in document.actions.items() if decl.raises}
    chart = dict(document.chart)
    return {**chart, "states": _states(chart["states"], raising)}


def _states(states: Mapping[str, Any], raising: Mapping[str, tuple[str, ...]]) -> dict[str, Any]:
    return {name: _state(body or {}, raising) for name, body in states.items()}


def _state(body: Mapping[str, Any], raising: Mapping[str, tuple[str, ...]]) -> dict[str, Any]:
    found = _plain(body, raising)
    if body.get("transitions"):
        found["transitions"] = [_plain(item, raising) for item in body["transitions"]]
    if body.get("states"):
        found["states"] = _states(body["states"], raising)
    if body.get("history"):
        found["history"] = {
            name: {**inner, "transitions": [_plain(t, raising) for t in inner["transitions"]]}
            for name, inner in body["history"].items()
        }
    return found


def _plain(item: Mapping[str, Any], raising: Mapping[str, tuple[str, ...]]) -> dict[str, Any]:
    found = {key: value for key, value in item.items() if key not in _OURS}
    for key in _SLOTS:
        if any(name in raising for name in as_list(found.get(key))):
            found[key] = [
                part
                for name in as_list(found[key])
                for part in (name, *({"raise": event} for event in raising.get(name, ())))
            ]
    return found


def without_raises(states: Mapping[str, Any], actions: Mapping[str, Any]) -> dict[str, Any]:
    """Return *states* without the events that follow an action of *actions* that raises them."""
    found: dict[str, Any] = {}
    for name, raw in states.items():
        body = _kept(raw or {}, actions)
        if body.get("transitions"):
            body["transitions"] = [_kept(item, actions) for item in body["transitions"]]
        if body.get("states"):
            body["states"] = without_raises(body["states"], actions)
        found[name] = body
    return found


def _kept(item: Mapping[str, Any], actions: Mapping[str, Any]) -> dict[str, Any]:
    found = dict(item)
    for key in _SLOTS:
        parts = as_list(found.get(key))
        raised = set(_raised(parts, actions))
        kept = [p for p in parts if not (isinstance(p, Mapping) and p.get("raise") in raised)]
        if len(kept) < len(parts):
            found[key] = kept
    return found


def _raised(parts: Iterable[Any], actions: Mapping[str, Any]) -> list[str]:
    names = [part for part in parts if isinstance(part, str)]
    return [e for name in names for e in as_list((actions.get(name) or {}).get("raise"))]
