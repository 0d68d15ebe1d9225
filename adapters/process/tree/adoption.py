"""Processes that were handed to us, the subreaper, when their own parent ended.

What we start ourselves leads a session; what others in this program start stays in ours or leads
one. So a child in a third session was handed to us for certain, and one in ours was not. A child
that leads its session is either; if it carries a tag of ours, it was handed to us.

None of this holds for PID 1 of a container: the kernel hands it every orphan of the PID namespace,
also of programs that came in from outside (``docker exec``). PID 1 therefore has no strays.
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

UNKNOWN_ZOMBIE_S = 3.0


class Adopted:
    """Those of our children that were handed to us.

    Args:
        instance: Of the launcher.
        starters: Return the pids of the children whose exit code somebody waits for.
        is_known: Return True if a process was seen in a tree.
    """

    def __init__(
        self, instance: str, starters: Callable[[], set[int]], *, is_known: Callable[[Proc], bool]
    ) -> None:
        self._instance, self._starters, self._is_known = instance, starters, is_known
        self._zombies: dict[tuple[int, int], float] = {}

    def is_stray(self, proc: Proc) -> bool:
        """Return True if *proc* lives, was handed to us for certain, and nothing tells by whom."""
        own = os.getpid()
        if own == 1 or proc.ppid != own or not proc.is_alive:
            return False
        if proc.sid in (os.getsid(0), proc.pid) or proc.pid in self._starters():
            return False
        if tag.read(proc.pid) or procfs.variable(proc.pid, "SWAPCHART_RUN"):
            return False  # some tree's: what is left of it was logged
        return not container_engines.is_daemon(proc.pid)

    async def end_strays(self, since: int, limit_s: float) -> None:
        """Kill the strays, which could have been of several trees; all of those are over now.

        Args:
            since: When the first tree began, in clock ticks since boot; 0 means there was none.
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
        """Reap those that have ended; never a child whose starter wants its exit code."""
        if reaping.has_zombie():
            with suppress(OSError):  # no descriptor left to look with: another time
                reaping.reap_zombies(self._is_adopted)

    def _is_adopted(self, proc: Proc) -> bool:
        """Tell a zombie that we adopted from one whose starter still wants its exit code.

        A leader of a session is adopted if it was seen in a tree or carries a tag of ours; else
        nobody wanted it for seconds.
        """
        if proc.pid in self._starters() or proc.sid == os.getsid(0):
            return False
        if proc.sid != proc.pid or self._is_known(proc):
            return True
        if tag.is_of(tag.read(proc.pid), self._instance):
            return True
        now = anyio.current_time()
        self._zombies = {key: at for key, at in self._zombies.items() if now - at < 60}
        return now - self._zombies.setdefault((proc.pid, proc.start), now) > UNKNOWN_ZOMBIE_S
