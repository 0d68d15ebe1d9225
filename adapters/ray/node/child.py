"""Processes of one node as its agent sees them: guard, output, exit and reservation."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

LOG_BYTES = 1 << 20  # output that is kept of each process
REPORT_BYTES = 1 << 18  # most output of one process in one report


class GuardServer:
    """The process that forks guards; see ``tree_guard``. Restarted when it has died.

    Args:
        source: Source text of ``tree_guard``.
        markers: Environment by which the next agent of this node finds what is left.
    """

    def __init__(self, source: str, markers: dict[str, str]) -> None:
        self._source, self._markers = source, markers
        self._popen: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None

    def spawn(self, request: dict[str, object], fds: list[int]) -> None:
        """Have a guard forked for *request* with its three file descriptors.

        Raises:
            OSError: No process could be started.
        """
        data = json.dumps(request).encode()
        for attempt in (1, 2):
            if self._popen is None or self._popen.poll() is not None:
                self._start()
            assert self._socket is not None, "set by _start"
            try:
                socket.send_fds(self._socket, [data], fds)
            except (BrokenPipeError, ConnectionResetError):
                if attempt == 2:
                    raise
                self._start()
            else:
                return

    def _start(self) -> None:
        if self._socket is not None:
            self._socket.close()
        if self._popen is not None:
            self._popen.kill()
            self._popen.wait()
        near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 21)
        with far:
            self._popen = subprocess.Popen(
                (sys.executable, "-I", "-S", "-E", "-c", self._source),
                stdin=far.fileno(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                cwd="/", env=self._markers, start_new_session=True,
            )  # fmt: skip
        self._socket = near

    def close(self) -> None:
        """Let it end, once all its guards have."""
        if self._socket is not None:
            self._socket.close()


class Child:
    """A process that the agent started.

    Args:
        facts: What the proxy said about it: ``id``, ``label``, ``incarnation``, ``grace_s``,
            ``lease_s``, and ``address`` and ``port`` once they are known.
        on_change: Called with False after output, with True after any other change.

    Attributes:
        pid: Process id of the leader.
        code: Exit code of the leader, negative for a signal; None while it runs.
        killed: Processes of its tree that were killed; None until the tree has ended.
        is_lost: Its guard was killed, so the end of its leader was not seen.
        version: Grows with each change but output.
        reservation: What it holds of the node; None if that is nothing.
        ending: How it is ended without its proxy; None means without hooks.
    """

    def __init__(self, facts: dict[str, Any], on_change: Callable[[bool], None]) -> None:
        self.facts, self._on_change = facts, on_change
        self.pid = 0
        self.code: int | None = None
        self.killed: int | None = None
        self.is_lost = False
        self.is_ending = False
        self.version = 1
        self.reservation: Any = None
        self.ending: dict[str, Any] | None = None
        self.spawned: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._log, self._log_end = bytearray(), 0
        self._lifeline = self._status = self._output = -1
        self._rest = b""

    @property
    def id(self) -> str:
        """Id of this run, unique for all time."""
        return str(self.facts["id"])

    def spawn(self, server: GuardServer, argv: list[str], env: dict[str, str]) -> None:
        """Start it; `spawned` then becomes 0, or the errno of the failure.

        Raises:
            OSError: No process could be started.
        """
        lifeline, self._lifeline = os.pipe()
        self._status, status = os.pipe()
        self._output, output = os.pipe()
        request = {
            "argv": argv, "env": env, "cwd": self.facts.get("cwd"),
            "grace_s": self.facts["grace_s"],
        }  # fmt: skip
        try:
            server.spawn(request, [lifeline, status, output])
        except OSError:
            self.close()
            raise
        finally:
            for fd in (lifeline, status, output):
                os.close(fd)
        loop = asyncio.get_running_loop()
        for fd, reader in ((self._status, self._read_status), (self._output, self._read_output)):
            os.set_blocking(fd, False)
            loop.add_reader(fd, reader)
        os.set_blocking(self._lifeline, False)

    def tell(self, line: str) -> None:
        """Give the guard an order; a no-op if it has ended."""
        with suppress(OSError):
            os.write(self._lifeline, line.encode() + b"\n")

    def end(self, grace_s: float) -> None:
        """Terminate it, and kill what is left of its tree after *grace_s* seconds."""
        self.is_ending = True
        self.tell("term")
        self.tell(f"sweep {grace_s}")

    def close(self) -> None:
        """Close all descriptors; a guard that still runs ends its tree then.

        Whatever waits for the start or the end of the process goes on.
        """
        self._spawned(255)
        if not self.ended.done():
            self.ended.set_result(None)
        loop = asyncio.get_running_loop()
        for fd in (self._lifeline, self._status, self._output):
            if fd >= 0:
                loop.remove_reader(fd)
                os.close(fd)
        self._lifeline = self._status = self._output = -1

    def report(self, version: int, offset: int) -> dict[str, Any] | None:
        """Return what has changed since *version* and byte *offset* of the output; else None."""
        begin = max(offset, self._log_end - len(self._log))
        if version >= self.version and begin >= self._log_end:
            return None
        start = begin - (self._log_end - len(self._log))
        data = bytes(self._log[start : start + REPORT_BYTES])
        return {
            **self.describe(), "log": base64.b64encode(data).decode(), "offset": begin + len(data)
        }  # fmt: skip

    def describe(self) -> dict[str, Any]:
        """Return its facts and its state, in values of JSON."""
        return {
            **self.facts, "pid": self.pid, "code": self.code, "killed": self.killed,
            "is_lost": self.is_lost, "version": self.version,
        }  # fmt: skip

    def _read_status(self) -> None:
        try:
            data = os.read(self._status, 4096)
        except BlockingIOError:
            return
        if not data:
            asyncio.get_running_loop().remove_reader(self._status)
            self._guard_ended()
            return
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            word, _, value = line.partition(b" ")
            self._take(word, int(value))

    def _take(self, word: bytes, value: int) -> None:
        if word == b"pid":
            self.pid = value
            self._spawned(0)
        elif word == b"fail":
            self._spawned(value)
        elif word == b"exit":
            self._read_output()  # its output is reported before its end
            self.code = value
        elif word == b"gone":
            self.killed = value
        self.changed()

    def _spawned(self, errno: int) -> None:
        if not self.spawned.done():
            self.spawned.set_result(errno)

    def _guard_ended(self) -> None:
        self._spawned(255)
        self._read_output()
        if self.killed is None and self.pid:
            self.is_lost = True  # the agent looks for what is left of the tree
            self.changed()
        else:
            self.conclude()

    def conclude(self) -> None:
        """Note that no process of the tree is left."""
        if self.killed is None:
            self.killed = 0
        if not self.ended.done():
            self.ended.set_result(None)
        self.changed()

    def _read_output(self) -> None:
        while self._output >= 0:
            try:
                data = os.read(self._output, 1 << 16)
            except BlockingIOError:
                return
            if not data:
                asyncio.get_running_loop().remove_reader(self._output)
                os.close(self._output)
                self._output = -1
                return
            self._log += data
            self._log_end += len(data)
            del self._log[: len(self._log) - LOG_BYTES]
            self._on_change(False)

    def changed(self) -> None:
        """Count a change, and report it."""
        self.version += 1
        self._on_change(True)
