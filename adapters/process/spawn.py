"""Starts one process: default signals, own session, typed errors that contain no secret.

A child inherits what ``exec`` keeps: ignored and blocked signals, limits and descriptors. Each is
reset without ``preexec_fn``, which would fork the whole proxy.
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
        The process, its start time in clock ticks since boot, and the descriptor of its output.

    Raises:
        SpecError: The command is invalid and will never start.
        EngineError: The system refused; a later attempt may succeed.
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
        leader = procfs.find(popen.pid)  # it exists until it is reaped
    except OSError as error:
        os.close(near)
        popen.kill()
        popen.wait()
        raise _launch_error(command, error) from error
    return popen, leader.start if leader is not None else 0, near


def _launch_error(command: Command, error: OSError | ValueError) -> LaunchError:
    first, *more = command.argv[0].split(None, 1) or [""]
    program = f"{first} ..." if more else first  # a command line in one item may contain secrets
    if isinstance(error, ValueError):  # a NUL, a lone surrogate, "=" in a variable's name
        return SpecError(f"cannot start {program}: {_value_reason(error)}")
    reason = error.strerror or type(error).__name__
    if command.cwd is not None and error.filename == command.cwd:
        reason = f"working directory {command.cwd}: {reason}"
    kind = SpecError if error.errno in _SPEC_ERRNOS else EngineError
    return kind(f"cannot start {program}: {reason}")


def _value_reason(error: ValueError) -> str:
    if isinstance(error, UnicodeError):  # its text quotes the value
        return "an argument or variable cannot be encoded"
    return str(error)


@contextmanager
def _no_signal_blocked() -> Iterator[None]:
    """Unblock all signals in this thread, whose mask a child inherits."""
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    if blocked:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, blocked)
    try:
        yield
    finally:
        if blocked:
            signal.pthread_sigmask(signal.SIG_BLOCK, blocked)


def _do_nothing(signum: int, frame: object) -> None:
    """Ignore a signal; unlike SIG_IGN, a handler is not inherited by children."""


def unignore_signals() -> list[signal.Signals]:
    """Replace SIG_IGN (nohup, background job) by a handler that ignores; return the signals."""
    if threading.current_thread() is not threading.main_thread():
        return []
    changed = []
    for signum in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGCHLD):
        if signal.getsignal(signum) is signal.SIG_IGN:
            signal.signal(signum, _do_nothing)
            changed.append(signum)
    return changed


def ignore_signals(changed: list[signal.Signals]) -> None:
    """Undo ``unignore_signals``, except for signals whose handler was changed meanwhile."""
    for signum in changed:
        if signal.getsignal(signum) is _do_nothing:
            signal.signal(signum, signal.SIG_IGN)
