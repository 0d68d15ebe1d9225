"""Child processes of tests: started in a folder of their own, and never left behind."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from . import raw
from .net import LONG_S, wait_until


class Child:
    """A running command, leader of its own process group; a context manager that kills the group.

    Attributes:
        process: The process itself.
        port: Where it serves, or 0.
    """

    def __init__(
        self,
        argv: Sequence[str],
        *,
        cwd: Path,
        port: int = 0,
        env: Mapping[str, str] | None = None,
        pass_fds: Sequence[int] = (),
    ) -> None:
        self.port = port
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  (closed in close)
        self.process = subprocess.Popen(
            argv,
            cwd=cwd,
            env={**os.environ, **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            start_new_session=True,
            pass_fds=pass_fds,
        )

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """Process id, also of the group."""
        return self.process.pid

    def output(self) -> str:
        """Return what it has written so far, to stdout and stderr."""
        size = os.fstat(self._log.fileno()).st_size
        return os.pread(self._log.fileno(), size, 0).decode("utf-8", "replace")

    def signal(self, number: int = signal.SIGTERM) -> None:
        """Send a signal to the process alone."""
        self.process.send_signal(number)

    def wait(self, timeout_s: float = LONG_S) -> int:
        """Wait for its end; returns the code, negative for a signal.

        Raises:
            TimeoutError: It still runs after *timeout_s* seconds.
        """
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired as error:
            raise TimeoutError(f"still running after {timeout_s} s:\n{self.output()}") from error

    def wait_healthy(self, timeout_s: float = LONG_S) -> Child:
        """Wait until ``/health`` answers 200; with port 0 the port is read from the output.

        Raises:
            TimeoutError: It does not within *timeout_s* seconds, or it has ended.
        """
        wait_until(self._is_healthy, timeout_s, what="healthy or ended")
        if self.process.poll() is not None:
            raise TimeoutError(f"ended with {self.process.returncode}:\n{self.output()}")
        return self

    def _is_healthy(self) -> bool:
        if self.process.poll() is not None:
            return True
        if not self.port:
            found = re.search(r"listening on http://127\.0\.0\.1:(\d+)", self.output())
            self.port = int(found[1]) if found else 0
        return bool(self.port) and raw.status(self.port) == 200

    def close(self) -> None:
        """Kill the group, reap the process and drop its output."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self._log.close()


def demo_argv(*options: str, model: str = "demo", port: int = 0) -> list[str]:
    """Return the command of a demo server, as fast as it can be unless *options* say otherwise."""
    module = [sys.executable, "-m", "swapchart.adapters.demo"]
    fast = ["--tokens-per-second", "0", "--prefill-tokens-per-second", "0"]
    return [*module, "--model", model, "--port", str(port), *fast, *options]


def demo_server(*options: str, cwd: Path, model: str = "demo", port: int = 0) -> Child:
    """Start a demo server; without *port* it takes a free one, known once it is healthy."""
    return Child(demo_argv(*options, model=model, port=port), cwd=cwd, port=port)
