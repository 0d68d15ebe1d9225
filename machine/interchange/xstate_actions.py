"""Actions and guards of XState as executable content and conditions of the native dialect."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from ..document import as_list
from .draft import Loss

#: Keys that `to_xstate` gives the parameters of an action.
_OURS = frozenset({"when", "assign", "effects", "raise"})


def guard_text(raw: Any, where: str, lost: list[Loss]) -> str:
    """Return the guard *raw* as the name of a guard or as a condition; empty without one."""
    if isinstance(raw, Mapping):
        parameters = raw.get("params") or {}
        if set(parameters) == {"expression"}:
            return str(parameters["expression"])
        name = str(raw.get("type") or "guard")
        if parameters or set(raw) - {"type", "params"}:
            lost.append(Loss(where, f"parameters of the guard {name!r}"))
        return _word(name)
    return _word(str(raw)) if raw is not None else ""


def action_nodes(raw: Any, where: str, lost: list[Loss]) -> Iterator[Any]:
    """Yield the action *raw* as names of callbacks and nodes of executable content."""
    if not isinstance(raw, Mapping):
        yield str(raw)
        return
    kind = str(raw.get("type") or "action")
    parameters = raw.get("params") or {}
    if parameters and set(parameters) <= _OURS:
        yield from _ours(parameters)
        return
    event = raw.get("event", parameters.get("event") if isinstance(parameters, Mapping) else None)
    name = event.get("type") if isinstance(event, Mapping) else event
    match kind.removeprefix("xstate."):
        case "raise" if isinstance(name, str) and "delay" not in raw:
            yield {"raise": {"event": name}}
        case "raise" | "send" if isinstance(name, str):
            yield {"send": {"event": name, "id": raw.get("id", name), "delay": _delay(raw)}}
        case "cancel":
            yield {"cancel": {"sendid": str(raw.get("sendId", raw.get("id", "")))}}
        case "log":
            yield {"log": {"label": str(raw.get("label") or raw.get("expr") or "log")}}
        case "assign" | "raise" | "send" | "pure" | "choose" | "enqueueActions" | "spawnChild":
            lost.append(Loss(where, f"the action {kind!r}, whose content is code"))
        case _:
            if parameters or set(raw) - {"type", "params", "exec"}:
                lost.append(Loss(where, f"parameters of the action {kind!r}"))
            yield kind


def _ours(parameters: Mapping[str, Any]) -> Iterator[Any]:
    nodes: list[Any] = [
        {"assign": {"location": target, "expr": text}}
        for target, text in (parameters.get("assign") or {}).items()
    ]
    for effect in as_list(parameters.get("effects")):
        nodes += _effect(effect)
    nodes += [{"raise": {"event": event}} for event in as_list(parameters.get("raise"))]
    if "when" in parameters:
        yield {"if": {"cond": parameters["when"], "then": nodes}}
    else:
        yield from nodes


def _effect(effect: Mapping[str, Any]) -> list[Any]:
    kind = str(effect.get("effect"))
    if kind == "timer.start":
        timer = str(effect["timer"])
        send = {"event": effect["event"], "id": timer}
        delay = {"delay": f"{effect['delay']}ms"} if "delay" in effect else {"named": timer}
        return [{"send": send | delay}]
    if kind == "timer.cancel":
        return [{"cancel": {"sendid": str(effect["timer"])}}]
    words = [str(value) for key, value in effect.items() if key != "effect"]
    return [{"log": {"label": kind, "expr": json.dumps(" ".join(words)) if words else ""}}]


def _delay(raw: Mapping[str, Any]) -> str:
    delay = raw.get("delay", 0)
    return f"{delay}ms" if isinstance(delay, int | float) else str(delay)


def _word(name: str) -> str:
    """Return the name of a guard as one word, so that it is not read as a condition."""
    word = "".join(char if char.isalnum() or char == "_" else "_" for char in name).strip("_")
    return f"not_{word}" if name.startswith("!") else word
