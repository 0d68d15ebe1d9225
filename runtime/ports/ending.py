"""Ending: how a process is ended without its proxy."""

from __future__ import annotations

from typing import Any

from ...dataclass import dataclass
from .command import Command
from .http import HttpCall


@dataclass(frozen=True, slots=True, kw_only=True)
class EndingStep:
    """One hook of an end: a command or an HTTP call.

    Attributes:
        command: The command; None for a call.
        call: The call; None for a command.
        timeout_s: Limit of each attempt in seconds.
        retries: Number of further attempts after a failure.
        delay_s: Pause before each further attempt in seconds.
        is_needed: A failure ends the steps of its point.
        is_inside: The command runs inside of what encloses the process, such as its container.
    """

    command: Command | None = None
    call: HttpCall | None = None
    timeout_s: float = 30.0
    retries: int = 0
    delay_s: float = 1.0
    is_needed: bool = False
    is_inside: bool = False

    def record(self) -> dict[str, Any]:
        """Return the step in values of JSON."""
        call = self.call
        return {
            "command": None if self.command is None else _record(self.command),
            "call": None if call is None else {
                "method": call.method, "url": call.url, "headers": dict(call.headers),
                "body": None if call.body is None else call.body.decode("latin-1"),
                "expect": sorted(call.expect),
            },
            "timeout_s": self.timeout_s, "retries": self.retries, "delay_s": self.delay_s,
            "is_needed": self.is_needed,
        }  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """How a process is ended when its proxy is gone: complete, with every placeholder filled.

    Attributes:
        before: Steps before SIGTERM or the stop command, while the process serves.
        stop: Command in place of SIGTERM; None means SIGTERM.
        grace_s: Seconds from SIGTERM or the stop command to SIGKILL; None means unlimited.
        failed: Steps after an end of the process by itself, before those of *after*.
        after: Steps after the end of the process tree.
    """

    before: tuple[EndingStep, ...] = ()
    stop: Command | None = None
    grace_s: float | None = 10.0
    failed: tuple[EndingStep, ...] = ()
    after: tuple[EndingStep, ...] = ()

    def record(self) -> dict[str, Any]:
        """Return the ending in values of JSON, for what carries it out without a proxy."""
        points = {"before": self.before, "failed": self.failed, "after": self.after}
        steps = {name: [step.record() for step in found] for name, found in points.items()}
        stop = None if self.stop is None else _record(self.stop)
        return {**steps, "stop": stop, "grace_s": self.grace_s}


def _record(command: Command) -> dict[str, Any]:
    return {"argv": list(command.argv), "env": dict(command.env), "cwd": command.cwd}
