"""Scripts of processes that exist only in a test: behavior of servers and commands."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias, TypeVar

from ..dataclass import dataclass
from .errors import LaunchError
from .ports import Command, Exit

_CLEAN = Exit(code=0)
_TERMINATED = Exit(signal=15)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerScript:
    """Behavior of one process of a service. Times are in seconds; None means never.

    Attributes:
        spawn_s: Duration of ``Launcher.start``.
        error: Raised by ``Launcher.start``.
        healthy_s: Time after the spawn from which on probes succeed.
        sick_s: Time after the spawn from which on probes fail again.
        probe_s: Duration of a probe; beyond its timeout it fails.
        exit_s: Time after the spawn when it ends by itself.
        exit: How it ends by itself.
        terminate_s: Time from SIGTERM to its end.
        terminated: How it ends after SIGTERM.
        kill_s: Time from SIGKILL to its end.
        leaves: Number of processes of its tree that outlive it.
        leaves_s: Time from the leader's end until those end by themselves.
        output: Output, as pairs of seconds after the spawn and bytes.
        lost_s: Time from the loss of its node until that is noticed.
    """

    spawn_s: float = 0.0
    error: LaunchError | None = None
    healthy_s: float | None = 0.0
    sick_s: float | None = None
    probe_s: float = 0.0
    exit_s: float | None = None
    exit: Exit = _CLEAN
    terminate_s: float | None = 0.0
    terminated: Exit = _TERMINATED
    kill_s: float | None = 0.0
    leaves: int = 0
    leaves_s: float | None = None
    output: tuple[tuple[float, bytes], ...] = ()
    lost_s: float | None = 14.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandScript:
    """Behavior of one command that runs to its end, such as a hook or stop command.

    Attributes:
        takes_s: Duration in seconds; None means that it hangs until it is killed.
        exit: How it ends.
        error: Raised at once, since it cannot be started.
        kill_s: Time in seconds from SIGKILL to its end.
        output: Output at its start.
        signals: Name of a service whose processes get SIGTERM when the command succeeds.
    """

    takes_s: float | None = 0.0
    exit: Exit = _CLEAN
    error: LaunchError | None = None
    kill_s: float = 0.0
    output: bytes = b""
    signals: str = ""


#: One script for all calls; or one for each call, of which the last one is repeated; or a function
#: of the command and the number of earlier calls of that name.
ServerScripts: TypeAlias = (
    ServerScript | Sequence[ServerScript] | Callable[[Command, int], ServerScript]
)
CommandScripts: TypeAlias = (
    CommandScript | Sequence[CommandScript] | Callable[[Command, int], CommandScript]
)


S = TypeVar("S", ServerScript, CommandScript)


def script_of(
    scripts: S | Sequence[S] | Callable[[Command, int], S], command: Command, n: int
) -> S:
    """Return the script of call number *n*, from 0."""
    if isinstance(scripts, Sequence):
        return scripts[min(n, len(scripts) - 1)]
    return scripts(command, n) if callable(scripts) else scripts
