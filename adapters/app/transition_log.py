"""Log lines about models: loaded, ready, stopped and why, failed, and hooks that failed.

A line is one event: a sentence, and behind it facts that a program can search for. It is written
when a model passes from one group of states to another, so a start with hooks is two lines.
"""

from __future__ import annotations

import json
import logging

from ...runtime import Transition

log = logging.getLogger("swapchart.models")

#: Events by which a model fails; anything else that ends it was asked for.
_FAILURES = frozenset(
    {"hooks_failed", "spawn_failed", "start_expired", "stalled", "unhealthy", "proc_exited"}
)
_WITHOUT_PROCESS = ("stopped", "backoff", "tripped", "half_open", "shut_down")


class TransitionLog:
    """Listener of transitions that writes the lines."""

    def __init__(self) -> None:
        self._group: dict[str, str] = {}  # service -> group of states that it is in, ...
        self._since: dict[str, float] = {}  # ... and when it came there

    def take(self, record: Transition) -> None:
        """Write what *record* is worth: nothing, or one line, and one for each failed hook."""
        for hook in record.hooks:
            if hook.outcome not in ("ok", "cancelled"):
                text = f"a hook of {record.service} failed: {hook.action}: {hook.detail}"
                facts = {"event": "hook_failed", "point": hook.point, "after": hook.seconds}
                _write(logging.WARNING, text, record, facts)
        before, group = self._group.get(record.service, "stopped"), _group(record)
        if group == before and record.target not in ("killing", "stuck"):
            return
        seconds = record.at - self._since.get(record.service, record.at)
        if group != before:
            self._group[record.service] = group
            self._since[record.service] = record.at
        self._write_change(record, before, group, seconds)

    def _write_change(self, record: Transition, before: str, group: str, seconds: float) -> None:
        name, cause = record.service, record.cause
        match group:
            case _ if record.target == "stuck":
                _write(logging.ERROR, f"{name} was killed and does not end", record, {})
            case _ if record.target == "killing" and record.event == "grace_expired":
                text = f"{name} did not stop in its grace period and is killed"
                _write(logging.WARNING, text, record, {"event": "killed"})
            case "starting":
                _write(logging.INFO, f"loading {name}: {cause}", record, {"event": "loading"})
            case "ready":
                facts = {"event": "ready", "after": seconds}
                _write(logging.INFO, f"{name} is ready", record, facts)
            case "stopping" if record.event in _FAILURES:
                facts = {"event": "failed", "state": record.source}
                _write(logging.WARNING, f"{name} failed: {cause}", record, facts)
            case "stopping" if before != "stopping":
                _write(logging.INFO, f"stopping {name}: {cause}", record, {"event": "stopping"})
            case "asleep":
                _write(logging.INFO, f"{name} is asleep: {cause}", record, {"event": "asleep"})
            case "tripped":
                text = f"{name} failed too often; requests are refused until it has cooled down"
                _write(logging.ERROR, text, record, {"event": "tripped"})
            case "backoff":
                text = f"{name} may start again after a pause"
                _write(logging.INFO, text, record, {"event": "backoff"})
            case "stopped" | "shut_down" if before == "stopping":
                facts = {"event": "stopped", "after": seconds}
                _write(logging.INFO, f"{name} has stopped", record, facts)
            case _:
                pass


def _group(record: Transition) -> str:
    """Return the group of the state: ``starting`` or ``stopping`` for all of its states."""
    for name in ("starting", "stopping"):
        if name in record.configuration:
            return name
    return record.target


def _write(level: int, text: str, record: Transition, facts: dict[str, object]) -> None:
    if not log.isEnabledFor(level):
        return
    found = {"model": record.service, "event": record.target, **facts, "pid": record.pid}
    if record.target in _WITHOUT_PROCESS:
        del found["pid"]
    if record.exit is not None:
        found |= {"code": record.exit.code, "signal": record.exit.signal}
    shown = " ".join(f"{key}={_shown(value)}" for key, value in found.items() if value is not None)
    log.log(level, "%s (%s)", _plain(text), shown)


def _shown(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.1f}s"
    text = str(value)
    return text if text.isprintable() and not set(text) & set(' "=()') else json.dumps(text)


def _plain(text: str) -> str:
    """Return *text* on one line: the output of a hook ends with a line break, and may hold more."""
    return text if text.isprintable() else json.dumps(text.strip())[1:-1]
