"""Processes that the proxy, as a subreaper, adopted when their parent ended.

A process that the launcher starts leads a session; one that other code in this program starts stays
in the proxy's session or leads one. So a child in a third session was certainly adopted, and one in
the proxy's session was not. A child that leads its session may be either; with a tag of this proxy
it was adopted.

This does not hold for PID 1 of a container, which adopts every orphan of the PID namespace, also of
programs that came in from outside (``docker exec``). PID 1 therefore has no strays.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import suppress

import anyio

from .. import container_engines, pidfd, procfs, reaping
from ..procfs import Proc
from . import tag

UNKNOWN_ZOMBIE_S = 3.0  # after this time a zombie that no other code reaped is reaped here


class AdoptedProcesses:
    """Children that this process adopted.

    Args:
        instance: Id of the launcher.
        started_pids: Return the pids of the children that the launcher started and reaps itself.
        is_known: Return True if a process was seen in a tree.
    """

    def __init__(
        self,
        instance: str,
        started_pids: Callable[[], set[int]],
        *,
        is_known: Callable[[Proc], bool],
    ) -> None:
        self._instance, self._started_pids, self._is_known = instance, started_pids, is_known
        self._zombies: dict[tuple[int, int], float] = {}

    def is_stray(self, proc: Proc) -> bool:
        """Return True if *proc* is running, was certainly adopted, and has no marker of a tree."""
        own = os.getpid()
        if own == 1 or proc.ppid != own or not proc.is_alive:
            return False
        if proc.sid in (os.getsid(0), proc.pid) or proc.pid in self._started_pids():
            return False
        if tag.read(proc.pid) or procfs.variable(proc.pid, "SWAPCHART_RUN"):
            return False  # of a tree, which has logged what it left
        return not container_engines.is_daemon(proc.pid)

    async def kill_strays(self, since: int, limit_s: float) -> None:
        """Kill the strays, adopted processes of unknown tree; call it when all trees have ended.

        Args:
            since: Start of the first tree, in clock ticks since boot; 0 means there was none.
            limit_s: Longest time to wait for their end, in seconds.
        """
        if since == 0:
            return
        with suppress(OSError), anyio.move_on_after(limit_s):
            while strays := [p for p in procfs.scan() if p.start >= since and self.is_stray(p)]:
                for stray in strays:
                    pidfd.send(stray, signal.SIGKILL)
                await pidfd.wait_gone(strays)

    def reap(self) -> None:
        """Reap adopted processes that have ended, and no child whose exit status is awaited."""
        if reaping.has_zombie():
            with suppress(OSError):  # no free descriptor; the next call retries
                reaping.reap_zombies(self._is_adopted)

    def _is_adopted(self, proc: Proc) -> bool:
        """Return True if zombie *proc* was adopted, so that no code waits for its exit status.

        A session leader counts as adopted if it was seen in a tree, carries a tag of this proxy, or
        was not reaped for some seconds.
        """
        if proc.pid in self._started_pids() or proc.sid == os.getsid(0):
            return False
        if proc.sid != proc.pid or self._is_known(proc):
            return True
        if tag.is_of(tag.read(proc.pid), self._instance):
            return True
        now = anyio.current_time()
        self._zombies = {key: at for key, at in self._zombies.items() if now - at < 60}
        return now - self._zombies.setdefault((proc.pid, proc.start), now) > UNKNOWN_ZOMBIE_S
