"""End of a command by a signal: what it has opened is closed first, and no signal is lost."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

_EVERY_S = 0.5


def exit_on_signals() -> None:
    """Turn SIGTERM and SIGHUP into `SystemExit`, with the exit code that shells report."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _exit)


def _exit(number: int, frame: object) -> None:
    raise SystemExit(128 + number)


@contextmanager
def losing_no_signal() -> Iterator[None]:
    """Let Ctrl-C end a wait for data even if it is pressed just before the wait begins.

    Python handles a signal between two instructions, so one that arrives after the last of them
    would be handled only when data arrive (seen once in 150 runs). A timer interrupts the wait.
    """
    before = signal.signal(signal.SIGALRM, lambda number, frame: None)
    signal.setitimer(signal.ITIMER_REAL, _EVERY_S, _EVERY_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
