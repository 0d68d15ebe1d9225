"""Keys of a terminal, read one by one without Enter."""

from __future__ import annotations

import os
import re
import select
import sys
import termios
import tty
from collections.abc import Iterator

_KEY = re.compile(rb"\x1b\[[A-Z]|\x1bO[A-Z]|\x1b|[^\x1b]")
_ARROWS = {"A": "up", "B": "down", "H": "home", "F": "end"}


class Keyboard:
    """Standard input as keys; a context manager that restores the settings of the terminal."""

    def __init__(self) -> None:
        self.fd = sys.stdin.fileno()

    def __enter__(self) -> Keyboard:
        self._before = termios.tcgetattr(self.fd)
        tty.setcbreak(self.fd)  # Ctrl-C remains a signal
        return self

    def __exit__(self, *error: object) -> None:
        termios.tcsetattr(self.fd, termios.TCSADRAIN, self._before)

    def wait(self, other_fd: int, limit_s: float) -> None:
        """Wait for a key, for something to read at *other_fd*, or *limit_s* seconds."""
        select.select([self.fd, other_fd], [], [], limit_s)

    def typed(self) -> Iterator[str]:
        """Yield the keys that were typed: a character, an arrow as ``up``; ``q`` at the end."""
        if not select.select([self.fd], [], [], 0)[0]:
            return
        data = os.read(self.fd, 1024)
        if not data:
            yield "q"  # the terminal is gone
        for key in _KEY.findall(data):
            if key.startswith(b"\x1b"):
                yield _ARROWS.get(key[2:].decode(), "")
            else:
                yield key.decode("latin-1")
