"""Keeper: the proxy's side of a guard that lets processes outlive it; see `guard_keeping`."""

from __future__ import annotations

import logging
import os
import socket
from contextlib import suppress
from pathlib import Path

from ....dataclass import dataclass
from ..guard import Guard
from .memory import Remembered

DOOR = "guard.sock"
_NEW_DOOR = "guard.sock.new"
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeepSettings:
    """How processes may outlive the proxy.

    Attributes:
        folder: Folder in which the next proxy finds the guard, and the guard notes what has ended.
        lease_s: Time in seconds for which they run without a proxy, > 0.
    """

    folder: Path
    lease_s: float


def address_of(folder: Path, fd: int, name: str = DOOR) -> str:
    """Return an address for socket *name* in *folder*, which is open as *fd*.

    The path of a folder may be longer than an address of a socket, which has at most 107 bytes.
    """
    return f"/proc/self/fd/{fd}/{name}" if len(os.fsencode(folder)) > 80 else str(folder / name)


class Keeper(Guard):
    """A guard that keeps the runs which may outlive the proxy.

    Args:
        instance: Id of the proxy.
        settings: How processes may outlive it.
    """

    def __init__(self, instance: str, settings: KeepSettings) -> None:
        super().__init__(instance)
        self._settings = settings
        self._door: socket.socket | None = None
        self._is_published = False
        self._runs: dict[str, Remembered] = {}

    def start(self, cgroups: str = "") -> None:
        """Open the door for the next proxy, and start the guard; see `Guard.start`."""
        if self._door is None:
            self._door = self._opened()
        super().start(cgroups)
        for run in self._runs:
            self._report_run(run)

    def _opened(self) -> socket.socket:
        folder = self._settings.folder
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        door = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            (folder / _NEW_DOOR).unlink(missing_ok=True)
            door.bind(address_of(folder, fd, _NEW_DOOR))
            (folder / _NEW_DOOR).chmod(0o600)
            door.listen(8)
        except OSError:
            door.close()
            raise
        finally:
            os.close(fd)
        return door

    def _channel(self) -> tuple[int, int]:
        far, near = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        return far.detach(), near.detach()

    def _arguments(self) -> tuple[tuple[str, ...], tuple[int, ...]]:
        assert self._door is not None, "start() opens it"
        fd = self._door.fileno()
        return (str(self._settings.folder), str(self._settings.lease_s), str(fd)), (fd,)

    def publish(self) -> None:
        """Let the next proxy find this guard from now on, and no earlier one.

        Until then it finds the guard of the proxy before, whose runs are not taken over yet.
        """
        if not self._is_published:
            self._is_published = True
            with suppress(OSError):
                (self._settings.folder / _NEW_DOOR).replace(self._settings.folder / DOOR)

    def remember(self, run: str, known: Remembered) -> None:
        """Let *run* outlive the proxy."""
        self._runs[run] = known
        self._report_run(run)

    def forget(self, run: str) -> None:
        """Let *run* end with the proxy; a no-op for an unknown one."""
        if self._runs.pop(run, None) is not None:
            self._report(f"!{run}")

    def _report_run(self, run: str) -> None:
        known = self._runs[run]
        if self._pipe < 0:
            return
        channel = socket.socket(fileno=os.dup(self._pipe))
        try:
            socket.send_fds(channel, [f"@{run}".encode()], [known.pipe, known.ring, known.record])
        except OSError as error:
            _log.warning("a model cannot outlive the proxy: %s", error)
        finally:
            channel.close()

    async def leave(self) -> None:
        """Let go of the guard, which goes on and keeps its runs."""
        self._is_released = True
        self._releasing.set()
        self._watching.cancel()
        await self._ended.wait()
        if self._popen is not None:
            self._popen.returncode = 0  # unknown; `Popen` would warn of a child that goes on
            self._popen = None
        if self._pipe >= 0:
            os.close(self._pipe)
            self._pipe = -1
        self._close_door()

    async def release(self) -> None:
        """Stop the guard, as `Guard.release` does, and close the door."""
        await super().release()
        self._close_door()
        with suppress(OSError):
            (self._settings.folder / (DOOR if self._is_published else _NEW_DOOR)).unlink()

    def _close_door(self) -> None:
        if self._door is not None:
            self._door.close()
            self._door = None
