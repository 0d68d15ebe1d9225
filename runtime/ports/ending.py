"""Ending: how a process is ended without its proxy."""

from __future__ import annotations

from dataclasses import dataclass

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
