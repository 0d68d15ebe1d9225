"""End of a command by a signal: what it has opened is closed first."""

from __future__ import annotations

import signal


def exit_on_signals() -> None:
    """Turn SIGTERM and SIGHUP into `SystemExit`, with the exit code that shells report."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _exit)


def _exit(number: int, frame: object) -> None:
    raise SystemExit(128 + number)
