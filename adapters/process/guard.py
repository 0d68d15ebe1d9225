"""Our end of the guard: keeps one guard process alive and tells it which groups exist.

The guard sees our death as the end of a pipe. A copy of this process made by ``fork`` without
``exec`` (multiprocessing's old default) holds that pipe too, and delays it by its own life.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import anyio

from ...runtime.fence import kept
from .pidfd import wait_child
from .tree import tag

_SCRIPT = Path(__file__).with_name("guard_process.py")
_PYTHON = (sys.executable, "-I", "-S", "-E")
_LEAVE_S = 1.0
_STABLE_S = 60.0
_PAUSE_LIMIT_S = 60.0
_log = logging.getLogger(__name__)


class Guard:
    """One guard process for one launcher; started again when it dies."""

    def __init__(self, instance: str) -> None:
        self._instance, self._cgroups = instance, ""
        self._groups: dict[int, int] = {}
        self._pipe = -1
        self._popen: subprocess.Popen[bytes] | None = None
        self._is_leaving = False
        self._leave = anyio.Event()
        self._left = anyio.Event()

    @property
    def pid(self) -> int:
        """Pid of the guard, 0 while there is none."""
        return self._popen.pid if self._popen is not None else 0

    def start(self, cgroups: str = "") -> None:
        """Start the guard and tell it all the groups we know.

        Args:
            cgroups: Folder in which the cgroups of our runs are; empty means none, or as before.

        Raises:
            OSError: It could not be started.
        """
        self._cgroups = cgroups or self._cgroups
        tags = str(tag.prefix(self._instance))
        far, near = os.pipe()  # not inheritable: no child may keep our death from being seen
        try:
            self._popen = subprocess.Popen(
                (*_PYTHON, str(_SCRIPT), self._instance, tags, self._cgroups),
                stdin=far,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd="/",
                env={},
                start_new_session=True,
            )
        except OSError:
            os.close(near)
            raise
        finally:
            os.close(far)
        os.set_blocking(near, False)
        self._pipe = near
        for leader, start in self._groups.items():
            self._say(f"+{leader} {start}")

    async def run(self) -> None:
        """Watch the guard until ``leave``, starting another when it dies, ever more slowly."""
        try:
            with anyio.CancelScope(shield=True):
                await kept(self._keep)
        finally:
            self._left.set()

    async def _keep(self) -> None:
        pause_s = 0.0
        while not self._is_leaving:
            began = anyio.current_time()
            await self._wait()
            if not self._is_leaving:
                quick = anyio.current_time() - began < _STABLE_S
                pause_s = min(pause_s * 2 + 0.1, _PAUSE_LIMIT_S) if quick else 0.0
                await self._restart(pause_s)

    async def _wait(self) -> None:
        if self._popen is not None:
            await wait_child(self._popen.pid)
            self._popen.wait()
            self._popen = None
        if self._pipe >= 0:
            os.close(self._pipe)
            self._pipe = -1

    async def _restart(self, pause_s: float) -> None:
        with anyio.move_on_after(pause_s):
            await self._leave.wait()
        if self._is_leaving:
            return
        try:
            self.start()
        except OSError as error:
            _log.warning("the guard process died and cannot be started: %s", error.strerror)
        else:
            _log.warning("the guard process died; another was started")

    async def leave(self) -> None:
        """Let the guard go without ending anything, and wait until it has."""
        self._is_leaving = True
        self._leave.set()
        self._say(".")
        with anyio.move_on_after(_LEAVE_S):
            await self._left.wait()
        if self._popen is not None:
            self._popen.kill()  # it hangs, or our own task was cancelled: nobody watches it
        await self._left.wait()
        await self._wait()

    def add(self, leader: int, start: int) -> None:
        """Tell of a new group: its leader's pid, and its start in clock ticks since boot."""
        self._groups[leader] = start
        self._say(f"+{leader} {start}")

    def discard(self, leader: int) -> None:
        """Tell that nothing is left of a group; of an unknown one, nothing happens."""
        if self._groups.pop(leader, None) is not None:
            self._say(f"-{leader}")

    def _say(self, line: str) -> None:
        # A full pipe (the guard hangs) or none (it died) is no harm: the marker in every
        # environment finds what was not named, and a new guard is told everything.
        if self._pipe >= 0:
            with suppress(OSError):
                os.write(self._pipe, line.encode() + b"\n")
