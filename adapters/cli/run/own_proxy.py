"""Proxy for one command: a child process on a free port, which ends with the command."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Sequence
from typing import IO

from .choosing import RunError

_LISTENS = re.compile(r"swapchart listens on (http://\S+)")
_START_LIMIT_S = 60.0

#: Program of the child, which the kernel ends by SIGTERM (1 is PR_SET_PDEATHSIG) with its parent.
_BOUND = """
import ctypes, os, runpy, signal, sys
parent = int(sys.argv.pop(1))
ctypes.CDLL(None).prctl(1, ctypes.c_ulong(signal.SIGTERM))
if os.getppid() != parent:  # it ended before
    os._exit(1)
runpy.run_module("swapchart", run_name="__main__", alter_sys=True)
"""


class OwnProxy:
    """A running proxy; a context manager that ends it and its models.

    It has a session of its own, so that Ctrl-C reaches the command alone. If the command is killed,
    the kernel sends SIGTERM to the proxy.

    Args:
        options: Options of `serve` beside the address.

    Attributes:
        url: Its address; empty before the block begins.
    """

    def __init__(self, options: Sequence[str]) -> None:
        self.url = ""
        self._options = options
        self._lines: deque[str] = deque(maxlen=20)
        self._is_known = threading.Event()

    def __enter__(self) -> OwnProxy:
        """Start it, and wait until it listens.

        Raises:
            RunError: It does not.
        """
        argv = [
            sys.executable, "-P", "-c", _BOUND, str(os.getpid()),
            "serve", "--listen", "127.0.0.1:0", *self._options,
        ]  # fmt: skip
        self._process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip
        try:
            assert self._process.stdout is not None
            threading.Thread(target=self._read, args=(self._process.stdout,), daemon=True).start()
            if not self._is_known.wait(_START_LIMIT_S):
                raise RunError(f"the proxy did not listen within {_START_LIMIT_S:.0f} s")
            if not self.url:
                raise RunError(self._failure())
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        """End it; each Ctrl-C meanwhile makes it end its models at once."""
        while self._process.poll() is None:
            try:
                self._process.terminate()
                self._process.wait()
            except KeyboardInterrupt:
                continue

    def _read(self, output: IO[bytes]) -> None:
        for line in output:
            text = line.decode("utf-8", "replace").rstrip()
            self._lines.append(text)
            if not self.url and (found := _LISTENS.search(text)):
                self.url = found[1]
                self._is_known.set()
        self._is_known.set()

    def _failure(self) -> str:
        last = self._lines[-1] if self._lines else "no output"
        return f"the proxy did not start: {last.removeprefix('swapchart: ')}"
