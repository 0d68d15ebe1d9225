"""A command in a terminal of its own, as a user sees it: typed keys, printed text, settings."""

from __future__ import annotations

import fcntl
import os
import re
import select
import signal
import struct
import subprocess
import termios
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import Any

from .net import LONG_S

#: Sequences by which a program colors text, moves the cursor and changes modes.
_CONTROL = re.compile(r"\x1b(?:\[[0-9;?]*[a-zA-Z]|\][^\x07]*\x07|[=>()][A-Z0-9]?)")
_SHOWN = 4000  # characters of a message
CTRL_C, CTRL_D = "\x03", "\x04"


def _environment() -> dict[str, str]:
    """Return ours without the size of another terminal, which programs would believe."""
    kept = {name: text for name, text in os.environ.items() if name not in ("COLUMNS", "LINES")}
    return {**kept, "TERM": "xterm-256color", "PYTHONUNBUFFERED": "1"}


class Terminal:
    """A running command whose terminal this is; a context manager that kills it.

    Args:
        argv: The command.
        cwd: Its working directory.
        env: Further variables.
        size: Rows and columns.

    Attributes:
        process: The command.
        raw: All that it has printed, with control sequences.
    """

    def __init__(
        self, argv: Sequence[str], *, cwd: Path, env: Mapping[str, str] | None = None,
        size: tuple[int, int] = (30, 140),
    ) -> None:  # fmt: skip
        self.raw = ""
        self._mark = 0
        self._fd, inner = os.openpty()
        fcntl.ioctl(inner, termios.TIOCSWINSZ, struct.pack("HHHH", *size, 0, 0))
        self._inner = inner  # stays open: its settings are read after the command has ended
        self._before = self.settings()

        def take_terminal() -> None:
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)

        self.process = subprocess.Popen(
            argv, cwd=cwd, stdin=inner, stdout=inner, stderr=inner, start_new_session=True,
            env={**_environment(), **(env or {})},
            preexec_fn=take_terminal,
        )  # fmt: skip

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *error: object) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        os.close(self._fd)
        os.close(self._inner)

    def type(self, text: str) -> None:
        """Type *text*; what was printed before does not count for `read_until` any more."""
        self._read(0.0)
        self._mark = len(self.raw)
        os.write(self._fd, text.encode())

    def end_by_ctrl_c(self) -> int:
        """Type Ctrl-C at a prompt; return the exit code.

        It is typed again after 3 s: readline misses a signal that comes between the prompt and its
        wait for a key, so that a program that is faster than a user finds it waiting.
        """
        for _ in range(5):
            self.type(CTRL_C)
            with suppress(TimeoutError):
                return self.wait(3.0)
        return self.wait()

    def read_until(self, pattern: str, timeout_s: float = LONG_S) -> re.Match[str]:
        """Read on until *pattern* is in what was printed since the last key.

        Raises:
            TimeoutError: It does not come.
        """
        deadline = monotonic() + timeout_s
        while (found := re.search(pattern, self.text())) is None:
            if not self._read(0.05) and monotonic() > deadline:
                raise TimeoutError(f"no {pattern!r} at the end of\n{self.text()[-_SHOWN:]}")
        return found

    def text(self) -> str:
        """Return what was printed since the last key, without control sequences."""
        return _CONTROL.sub("", self.raw[self._mark :]).replace("\r\n", "\n")

    def _read(self, timeout_s: float) -> bool:
        has_read = False
        while select.select([self._fd], [], [], 0.0 if has_read else timeout_s)[0]:
            self.raw += os.read(self._fd, 1 << 16).decode("utf-8", "replace")
            has_read = True
        return has_read

    def settings(self) -> list[Any]:
        """Return the settings of the terminal, such as whether it shows what is typed."""
        return termios.tcgetattr(self._inner)

    def is_restored(self) -> bool:
        """Return True if settings, screen and cursor are as before the command."""
        shown = self.raw.rfind("\x1b[?25h") >= self.raw.rfind("\x1b[?25l")
        main = self.raw.rfind("\x1b[?1049l") >= self.raw.rfind("\x1b[?1049h")
        return self.settings() == self._before and shown and main

    def resize(self, rows: int, columns: int) -> None:
        """Change the size, of which the command is told."""
        fcntl.ioctl(self._inner, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        os.kill(self.process.pid, signal.SIGWINCH)

    def wait(self, timeout_s: float = LONG_S) -> int:
        """Read on until the command has ended; return its exit code, negative for a signal.

        Raises:
            TimeoutError: It still runs.
        """
        deadline = monotonic() + timeout_s
        while self.process.poll() is None:
            self._read(0.02)
            if monotonic() > deadline:
                raise TimeoutError(f"still running:\n{self.text()[-_SHOWN:]}")
        self._read(0.0)
        return self.process.returncode
