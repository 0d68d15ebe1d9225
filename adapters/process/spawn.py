"""Starts one process: clean signals, own session, typed errors that tell no secret.

What a child inherits is what ``exec`` keeps: ignored signals, blocked signals, limits and
descriptors. Each is put right without ``preexec_fn``, which would fork the whole proxy.
"""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from ...runtime.errors import EngineError, LaunchError, SpecError
from ...runtime.ports import Command
from . import oom, procfs, rlimits

_SPEC_ERRNOS = frozenset(
    {
        errno.ENOENT,
        errno.EACCES,
        errno.EPERM,
        errno.ENOEXEC,
        errno.E2BIG,
        errno.ENOTDIR,
        errno.EISDIR,
        errno.ELOOP,
        errno.ENAMETOOLONG,
        errno.EINVAL,
    }
)


def spawn(command: Command, env: dict[str, str]) -> tuple[subprocess.Popen[bytes], int, int]:
    """Start the process.

    Returns:
        It; its start in clock ticks since boot; the descriptor where its output arrives.

    Raises:
        SpecError: The command cannot be started as it is.
        EngineError: The machine refused for now.
    """
    if not command.argv or not command.argv[0]:
        raise SpecError("the command is empty")
    try:
        near, far = os.pipe()
    except OSError as error:
        raise _launch_error(command, error) from error
    try:
        with _no_signal_blocked():
            popen = subprocess.Popen(
                command.argv,
                stdin=subprocess.DEVNULL,
                stdout=far,
                stderr=far,
                cwd=command.cwd,
                env=env,
                start_new_session=True,
            )
    except (OSError, ValueError) as error:
        os.close(near)
        raise _launch_error(command, error) from error
    finally:
        os.close(far)
    rlimits.restore_nofile_limit(popen.pid)
    oom.raise_oom_score(popen.pid)
    try:
        leader = procfs.find(popen.pid)  # it is there until reaped, even if it has ended
    except OSError as error:
        os.close(near)
        popen.kill()
        popen.wait()
        raise _launch_error(command, error) from error
    return popen, leader.start if leader is not None else 0, near


def _launch_error(command: Command, error: OSError | ValueError) -> LaunchError:
    first, *more = command.argv[0].split(None, 1) or [""]
    program = f"{first} ..." if more else first  # a whole command line in one item: no secrets
    if isinstance(error, ValueError):  # a NUL, a lone surrogate, "=" in a variable's name
        return SpecError(f"cannot start {program}: {_value_reason(error)}")
    reason = error.strerror or type(error).__name__
    if command.cwd is not None and error.filename == command.cwd:
        reason = f"working directory {command.cwd}: {reason}"
    kind = SpecError if error.errno in _SPEC_ERRNOS else EngineError
    return kind(f"cannot start {program}: {reason}")


def _value_reason(error: ValueError) -> str:
    if isinstance(error, UnicodeError):  # its text quotes what could not be encoded
        return "an argument or variable cannot be encoded"
    return str(error)


@contextmanager
def _no_signal_blocked() -> Iterator[None]:
    """Let a child start with no signal blocked; it inherits the mask of this thread."""
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    if blocked:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, blocked)
    try:
        yield
    finally:
        if blocked:
            signal.pthread_sigmask(signal.SIG_BLOCK, blocked)


def _do_nothing(signum: int, frame: object) -> None:
    """Handle a signal like SIG_IGN, which a child would inherit; a handler it does not."""


def unignore_signals() -> list[signal.Signals]:
    """Ignore by a handler what was ignored (nohup, a background job); returns which."""
    if threading.current_thread() is not threading.main_thread():
        return []
    changed = []
    for signum in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGCHLD):
        if signal.getsignal(signum) is signal.SIG_IGN:
            signal.signal(signum, _do_nothing)
            changed.append(signum)
    return changed


def ignore_signals(changed: list[signal.Signals]) -> None:
    """Undo ``unignore_signals``, where nobody has set a handler since."""
    for signum in changed:
        if signal.getsignal(signum) is _do_nothing:
            signal.signal(signum, signal.SIG_IGN)
