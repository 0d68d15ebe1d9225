"""Log lines about models: loaded, ready, stopped and why, failed, and hooks that failed.

A line is one event: a sentence, and behind it facts that a program can search for. It is written
when a model passes from one group of states to another, so a start with hooks is two lines.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from ...runtime import Transition
from ..system.log_facts import log_event

log = logging.getLogger("swapchart.models")

#: Events by which a model fails; anything else that ends it was asked for.
_FAILURES = frozenset(
    {"hooks_failed", "spawn_failed", "start_expired", "stalled", "unhealthy", "proc_exited"}
)
_WITHOUT_PROCESS = ("stopped", "backoff", "tripped", "half_open", "shut_down")


class TransitionLog:
    """Listener of transitions that writes the lines.

    Args:
        request_of: Returns the id of the request that a transition is for; empty for none.
    """

    def __init__(self, request_of: Callable[[Transition], str] = lambda _: "") -> None:
        self._request_of = request_of
        self._request: dict[str, str] = {}  # service -> request that it starts or stops for
        self._group: dict[str, str] = {}  # service -> group of states that it is in, ...
        self._since: dict[str, float] = {}  # ... and when it came there

    def take(self, record: Transition) -> None:
        """Write what *record* is worth: nothing, or one line, and one for each failed hook."""
        for hook in record.hooks:
            if hook.outcome not in ("ok", "cancelled"):
                text = f"a hook of {record.service} failed: {hook.action}: {hook.detail}"
                facts = {"event": "hook_failed", "point": hook.point, "after": hook.seconds}
                _log(logging.WARNING, text, record, facts)
        before, group = self._group.get(record.service, "stopped"), _group(record)
        swap = None if record.swap is None else record.swap.id
        request = self._request_behind(record, group)
        if group == before and record.target not in ("killing", "stuck"):
            return
        seconds = record.at - self._since.get(record.service, record.at)
        if group != before:
            self._group[record.service] = group
            self._since[record.service] = record.at
        self._write_change(record, before, group, seconds, {"request": request, "swap": swap})

    def _request_behind(self, record: Transition, group: str) -> str:
        """Return the request that a start or a stop is for, until it has succeeded or failed."""
        name, known = record.service, self._request
        if found := self._request_of(record):
            known[name] = found
        found = known.get(name, "")
        if group not in ("starting", "stopping"):
            known.pop(name, None)
        return found

    def _write_change(
        self, record: Transition, before: str, group: str, seconds: float, more: dict[str, object]
    ) -> None:
        name, cause = record.service, record.cause

        def _write(level: int, text: str, record: Transition, facts: dict[str, object]) -> None:
            _log(level, text, record, {**facts, **more})

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


def _log(level: int, text: str, record: Transition, facts: dict[str, object]) -> None:
    found = {"model": record.service, "event": record.target, **facts, "pid": record.pid}
    if record.target in _WITHOUT_PROCESS:
        del found["pid"]
    if record.exit is not None:
        found |= {"code": record.exit.code, "signal": record.exit.signal}
    log_event(log, level, text, found, unshown=("swap",))
