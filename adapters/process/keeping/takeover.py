"""Take-over: runs that an earlier proxy has left with its guard; see `guard_keeping`."""

from __future__ import annotations

import json
import logging
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio

from ....dataclass import dataclass, field
from ...system import threads
from . import guard_keeping
from .keeper import address_of

_LIMIT_S = 10.0  # for the guard to respond; it may be ending other processes meanwhile
ENDED = "ended"
_log = logging.getLogger(__name__)


@dataclass(slots=True, kw_only=True)
class KeptRun:
    """A run that the guard has kept.

    Attributes:
        run: Its id; SWAPCHART_RUN in the environment of its processes.
        record: Its record.
        fds: Pipe of its output, ring of its last output, record; empty if it is being ended.
        ended: Set when the guard has ended it, or is gone.
        is_lost: The guard is gone, and has not ended it.
    """

    run: str
    record: Mapping[str, Any]
    fds: tuple[int, ...] = ()
    ended: anyio.Event = field(default_factory=anyio.Event)
    is_lost: bool = False

    async def wait_ended(self) -> bool:
        """Wait until the guard has ended it; False if the guard is gone instead."""
        await self.ended.wait()
        return not self.is_lost

    @property
    def service(self) -> str:
        """Name of its service."""
        return str(self.record["service"])

    @property
    def instance(self) -> str:
        """Id of the proxy that started it."""
        return str(self.record["instance"])


class TakeOver:
    """Connection to the guard of an earlier proxy.

    Attributes:
        runs: Id -> run, of all that the guard has kept.
    """

    def __init__(self, sock: socket.socket, runs: Mapping[str, KeptRun]) -> None:
        self._sock, self.runs = sock, dict(runs)

    def adopt(self, run: str) -> None:
        """Take *run* over: the guard forgets it.

        Raises:
            OSError: The guard is gone.
        """
        guard_keeping.send(self._sock, f"+{run}", [])

    def end(self, run: str) -> None:
        """Ask the guard to end *run* as its record says; it sets `KeptRun.ended`."""
        for fd in self.runs[run].fds:
            os.close(fd)
        self.runs[run].fds = ()
        with suppress(OSError):
            guard_keeping.send(self._sock, f"-{run}", [])

    async def listen(self) -> None:
        """Take the messages of the guard until it ends; a task."""
        try:
            self._sock.setblocking(False)
            while True:
                await anyio.wait_readable(self._sock)
                message, _ = guard_keeping.receive(self._sock)
                if not message:
                    return
                if message[0] == "!" and message[1:] in self.runs:
                    self.runs[message[1:]].ended.set()
        except OSError:
            return
        finally:
            for run in self.runs.values():
                run.is_lost = not run.ended.is_set()
                run.ended.set()
            self.close()

    def close(self) -> None:
        """Leave what was not taken over to the guard."""
        self._sock.close()
        for run in self.runs.values():
            for fd in run.fds:
                os.close(fd)
            run.fds = ()


async def take_over(folder: Path) -> TakeOver | None:
    """Return the connection to the guard of an earlier proxy; None if there is none."""
    return await threads.run(_connect, folder)


def _connect(folder: Path) -> TakeOver | None:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    sock.settimeout(_LIMIT_S)
    try:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            sock.connect(address_of(folder, fd))
        finally:
            os.close(fd)
    except OSError:  # no guard has one, or the last one has ended
        sock.close()
        return None
    try:
        return TakeOver(sock, {run.run: run for run in _received(sock)})
    except (OSError, ValueError, KeyError) as error:
        _log.warning("the guard of an earlier proxy does not hand its models over: %s", error)
        sock.close()
        return None


def _received(sock: socket.socket) -> Iterator[KeptRun]:
    while True:
        message, fds = guard_keeping.receive(sock)
        if message == ".":
            return
        if not message or not fds:
            raise OSError("it has ended")
        record = json.loads(os.pread(fds[-1], os.fstat(fds[-1]).st_size, 0))
        is_kept = message[0] == "@"
        yield KeptRun(run=message[1:], record=record, fds=tuple(fds) if is_kept else ())
        if not is_kept:
            os.close(fds[0])


def read_ended(folder: Path) -> list[tuple[str, str]]:
    """Return (instance, service) of each run that a guard has ended without a proxy; once each."""
    path = folder / ENDED
    try:
        lines = path.read_text("utf-8", "replace").splitlines()
        path.unlink()
    except OSError:
        return []
    found = (line.partition(" ") for line in lines)
    return [(instance, service) for instance, _, service in found if service]
