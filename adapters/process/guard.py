"""Runs one guard process, restarts it when it dies, and reports the process groups to it.

The guard detects the death of the proxy as the end of a pipe. A copy of this process made by
``fork`` without ``exec`` (multiprocessing's old default) holds that pipe too, so the guard acts
only when the copy has ended as well.
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
_RELEASE_LIMIT_S = 1.0  # longest wait for a guard that was released
_STABLE_S = 60.0  # a guard that ran this long is restarted at once
_MAX_PAUSE_S = 60.0  # longest pause between two restarts
_log = logging.getLogger(__name__)


class Guard:
    """One guard process for one launcher; restarted when it dies."""

    def __init__(self, instance: str) -> None:
        self._instance, self._cgroups = instance, ""
        self._groups: dict[int, int] = {}
        self._others: set[str] = set()  # earlier proxies whose processes were taken over
        self._pipe = -1
        self._popen: subprocess.Popen[bytes] | None = None
        self._is_released = False
        self._releasing = anyio.Event()
        self._ended = anyio.Event()
        self._watching = anyio.CancelScope(shield=True)

    @property
    def pid(self) -> int:
        """Pid of the guard; 0 while there is none."""
        return self._popen.pid if self._popen is not None else 0

    def start(self, cgroups: str = "") -> None:
        """Start the guard and report all known process groups to it.

        Args:
            cgroups: Folder of the cgroups of all runs; empty keeps the earlier value.

        Raises:
            OSError: The guard could not be started.
        """
        self._cgroups = cgroups or self._cgroups
        tags = str(tag.prefix(self._instance))
        far, near = self._channel()
        arguments, fds = self._arguments()
        try:
            self._popen = subprocess.Popen(
                (*_PYTHON, str(_SCRIPT), self._instance, tags, self._cgroups, *arguments),
                pass_fds=fds,
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
            self._report(f"+{leader} {start}")
        for instance in self._others:
            self._report_instance(instance)

    def _channel(self) -> tuple[int, int]:
        """Return the ends of the guard and of the proxy; children inherit neither."""
        return os.pipe()

    def _arguments(self) -> tuple[tuple[str, ...], tuple[int, ...]]:
        """Return further arguments of the guard, and the descriptors that it inherits."""
        return (), ()

    async def run(self) -> None:
        """Watch the guard until ``release``; restart it with growing pauses when it dies."""
        try:
            with self._watching:
                await kept(self._keep)
        finally:
            self._ended.set()

    async def _keep(self) -> None:
        pause_s = 0.0
        while not self._is_released:
            began = anyio.current_time()
            await self._wait()
            if not self._is_released:
                quick = anyio.current_time() - began < _STABLE_S
                pause_s = min(pause_s * 2 + 0.1, _MAX_PAUSE_S) if quick else 0.0
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
            await self._releasing.wait()
        if self._is_released:
            return
        try:
            self.start()
        except OSError as error:
            _log.warning("the guard process died and cannot be restarted: %s", error.strerror)
        else:
            _log.warning("the guard process died and was restarted")

    async def release(self) -> None:
        """Stop the guard without terminating any process, and wait until it has ended."""
        self._is_released = True
        self._releasing.set()
        self._report(".")
        with anyio.move_on_after(_RELEASE_LIMIT_S):
            await self._ended.wait()
        if self._popen is not None:
            self._popen.kill()  # it hangs, or the task of `run` was cancelled
        await self._ended.wait()
        await self._wait()

    def add(self, leader: int, start: int) -> None:
        """Report a new group by its leader's pid and start time in clock ticks since boot."""
        self._groups[leader] = start
        self._report(f"+{leader} {start}")

    def discard(self, leader: int) -> None:
        """Report that a group has ended; a no-op for an unknown one."""
        if self._groups.pop(leader, None) is not None:
            self._report(f"-{leader}")

    def take_over(self, instance: str) -> None:
        """Report that processes of an earlier proxy are ours now."""
        if instance not in self._others:
            self._others.add(instance)
            self._report_instance(instance)

    def _report_instance(self, instance: str) -> None:
        self._report(f"&{instance} {tag.prefix(instance)}")

    def _report(self, line: str) -> None:
        # A full pipe (the guard hangs) or a closed one (it died) does no harm: the guard also finds
        # processes by their environment, and a new guard gets all groups.
        if self._pipe >= 0:
            with suppress(OSError):
                os.write(self._pipe, line.encode() + b"\n")
