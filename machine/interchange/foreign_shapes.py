"""Shapes of charts in the native dialect and in XState's: what the readers rely on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import ChartError

_SLOTS = ("before", "on", "after")
_KINDS = "assign, raise, log, if, foreach, send, cancel or script"


def check_native(raw: Any, where: str = "states") -> None:
    """Check the section ``states`` of a chart in the native dialect.

    Raises:
        ChartError: A part has another shape than the readers rely on.
    """
    for name, body in _mapping(raw, where).items():
        at = f"{where}.{name}"
        fields = _mapping(body, at)
        for key in ("enter", "exit"):
            _contents(fields.get(key), f"{at}.{key}")
        _transitions(fields.get("transitions"), f"{at}.transitions")
        for index, item in enumerate(_listed(fields.get("invoke"), f"{at}.invoke")):
            inner = _mapping(item, f"{at}.invoke[{index}]")
            for parameter in _listed(inner.get("params"), f"{at}.invoke[{index}].params"):
                _mapping(parameter, f"{at}.invoke[{index}].params")
        for history, inner in _mapping(fields.get("history"), f"{at}.history").items():
            kept = _mapping(inner, f"{at}.history.{history}")
            _transitions(kept.get("transitions"), f"{at}.history.{history}.transitions")
        _words(fields, at, ("description",))
        _texts(fields.get("tags"), f"{at}.tags")
        check_native(fields.get("states"), f"{at}.states")


def _transitions(raw: Any, where: str) -> None:
    if raw is not None and not isinstance(raw, list):
        raise _error(where, "a list", raw)
    for index, item in enumerate(raw or ()):
        at = f"{where}[{index}]"
        fields = _mapping(item, at)
        _words(fields, at, ("event", "target", "description"))
        for key in ("cond", "unless"):
            for text in _listed(fields.get(key), f"{at}.{key}"):
                if not isinstance(text, str | bool | int):
                    raise _error(f"{at}.{key}", "a condition", text)
        for key in _SLOTS:
            _contents(fields.get(key), f"{at}.{key}")


def _contents(raw: Any, where: str) -> None:
    for item in _listed(raw, where):
        if isinstance(item, str):
            continue
        if not isinstance(item, Mapping) or len(item) != 1:
            raise _error(where, f"the name of a callback, or one of {_KINDS}", item)
        (kind, body), *_ = item.items()
        if isinstance(body, str):
            if kind not in ("raise", "log", "script"):
                raise _error(f"{where}.{kind}", "a mapping", body)
            continue
        fields = _mapping(body, f"{where}.{kind}")
        branches = [fields, *_listed(fields.get("elif"), f"{where}.{kind}")]
        for branch in branches if kind == "if" else ():
            inner = _mapping(branch, f"{where}.{kind}")
            _contents(inner.get("then"), f"{where}.{kind}.then")
            _contents(inner.get("else"), f"{where}.{kind}.else")
        for key, value in fields.items():
            if kind != "if" and isinstance(value, Mapping | list) and key not in ("params", "do"):
                raise _error(f"{where}.{kind}.{key}", "a text", value)


def check_xstate(raw: Any, where: str = "machine") -> None:
    """Check one node of an XState machine, with all nodes inside.

    Raises:
        ChartError: A part has another shape than the readers rely on.
    """
    fields = _mapping(raw, where)
    _words(fields, where, ("id", "type", "description"))
    _texts(fields.get("tags"), f"{where}.tags")
    for key in ("entry", "exit", "onEntry", "onExit"):
        _actions(fields.get(key), f"{where}.{key}")
    for key in ("on", "after"):
        for name, item in _mapping(fields.get(key), f"{where}.{key}").items():
            _reactions(item, f"{where}.{key}.{name}")
    for key in ("always", "onDone"):
        _reactions(fields.get(key), f"{where}.{key}")
    for index, item in enumerate(_listed(fields.get("invoke"), f"{where}.invoke")):
        at = f"{where}.invoke[{index}]"
        if not isinstance(item, str):
            inner = _mapping(item, at)
            _words(inner, at, ("id",))
            for key in ("onDone", "onError"):
                _reactions(inner.get(key), f"{at}.{key}")
    _texts(fields.get("target"), f"{where}.target")
    initial = fields.get("initial")
    if isinstance(initial, Mapping):
        _words(initial, f"{where}.initial", ("target",))
    else:
        _words(fields, where, ("initial",))
    for name, inner in _mapping(fields.get("states"), f"{where}.states").items():
        check_xstate(inner, f"{where}.states.{name}")


def _reactions(raw: Any, where: str) -> None:
    for item in _listed(raw, where):
        if item is None or isinstance(item, str):
            continue
        fields = _mapping(item, where)
        _texts(fields.get("target"), f"{where}.target")
        _actions(fields.get("actions"), f"{where}.actions")
        for key in ("guard", "cond"):
            guard = fields.get(key)
            if not isinstance(guard, str | None):
                _named(guard, f"{where}.{key}")


def _actions(raw: Any, where: str) -> None:
    for item in _listed(raw, where):
        if not isinstance(item, str):
            parameters = _mapping(_named(item, where).get("params"), f"{where}.params")
            _mapping(parameters.get("assign"), f"{where}.params.assign")
            _texts(parameters.get("raise"), f"{where}.params.raise")
            for effect in _listed(parameters.get("effects"), f"{where}.params.effects"):
                at = f"{where}.params.effects"
                words = ("effect", "timer", "event")
                _words(_mapping(effect, at), at, words)
                if str(effect.get("effect", "")).startswith("timer.") and not effect.get("timer"):
                    raise _error(f"{at}.timer", "the name of a timer", None)
                if effect.get("effect") == "timer.start" and not effect.get("event"):
                    raise _error(f"{at}.event", "the event of the timer", None)


def _named(raw: Any, where: str) -> Mapping[str, Any]:
    fields = _mapping(raw, where)
    _words(fields, where, ("type",))
    _mapping(fields.get("params"), f"{where}.params")
    return fields


def _mapping(raw: Any, where: str) -> Mapping[str, Any]:
    if raw is None:
        return {}
    if not isinstance(raw, Mapping):
        raise _error(where, "a mapping", raw)
    return raw


def _listed(raw: Any, where: str) -> list[Any]:
    return raw if isinstance(raw, list) else [] if raw is None else [raw]


def _words(fields: Mapping[str, Any], where: str, keys: tuple[str, ...]) -> None:
    for key in keys:
        if not isinstance(fields.get(key), str | None):
            raise _error(f"{where}.{key}", "a text", fields[key])


def _texts(raw: Any, where: str) -> None:
    for item in _listed(raw, where):
        if not isinstance(item, str):
            raise _error(where, "a text", item)


def _error(where: str, expected: str, raw: Any) -> ChartError:
    if isinstance(raw, Mapping):
        found = "a mapping"
    else:
        found = "a list" if isinstance(raw, list) else repr(raw)[:60]
    return ChartError(where, f"expected {expected}, got {found}")
