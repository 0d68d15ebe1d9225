"""Termination of a process tree: SIGTERM, SIGKILL, and log entries where neither works."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable, Iterable
from functools import partial
from typing import TypeVar

import anyio

from .. import container_engines, pidfd, procfs, users
from ..procfs import Proc
from . import descendants
from .descendants import Tree

ENGINE_LIMIT_S = 2.0  # longest wait for the monitor of a container to end after its client
SCAN_RETRY_S = 0.05
CONFIRMATIONS = 3  # each finds nine of ten trees that fork and exit every 2 ms
CONFIRM_S = 0.004

T = TypeVar("T")

_log = logging.getLogger(__name__)


class TreeTermination:
    """Termination of one tree; no process gets SIGTERM twice, and each failure is logged once.

    Args:
        label: Name of the service for log messages.
    """

    def __init__(self, label: str) -> None:
        self._label = label
        self._signaled: set[tuple[int, int]] = set()  # pid and start
        self._denied: set[tuple[int, int]] = set()

    def terminate(self, members: Iterable[Proc], group: int) -> None:
        """Send SIGTERM to *members* outside process group *group*, which has got it already."""
        new = [each for each in members if (each.pid, each.start) not in self._signaled]
        self._signaled.update((each.pid, each.start) for each in new)
        for member in new:
            if member.pgid != group:
                pidfd.send(member, signal.SIGTERM)
                pidfd.send(member, signal.SIGCONT)

    def kill(self, proc: Proc) -> bool:
        """Kill one process; if it may not be signaled, log that once and return False."""
        if pidfd.send(proc, signal.SIGKILL) or not users.is_denied(proc):
            return True
        if (proc.pid, proc.start) not in self._denied:
            self._denied.add((proc.pid, proc.start))
            _log.error(
                "%s: pid %d (%s) of user %s is left running: user %s may not signal it",
                self._label, proc.pid, procfs.program(proc.pid),
                users.name(users.uid(proc.pid)), users.name(os.geteuid()),
            )  # fmt: skip
        return False

    async def find(
        self, tree: Tree, scan: Callable[[], list[Proc]], *, is_killing: bool = False
    ) -> list[Proc]:
        """Return what *scan* finds of *tree*; an empty result is confirmed a few times.

        A process that is being forked has a pid for a moment before it can be found.
        """
        newest = await retry_scan(descendants.newest_pid)
        members = await retry_scan(scan)
        for _ in range(CONFIRMATIONS):
            if members:
                break
            await anyio.sleep(CONFIRM_S)
            before, newest = newest, await retry_scan(descendants.newest_pid)
            members = await retry_scan(partial(self.newer, tree, before, is_killing=is_killing))
        return members

    def newer(self, tree: Tree, newest: int, *, is_killing: bool) -> list[Proc]:
        """Return the processes of *tree* started after pid *newest*; kill them if asked."""
        return [each for each in tree.newer(newest) if not is_killing or self.kill(each)]

    async def await_engines(self, engines: Iterable[Proc]) -> None:
        """Wait until the containers of *engines* have ended; log those that have not in time.

        A container whose client has ended is terminated by its engine only.
        """
        monitors = container_engines.monitors(engines)
        with anyio.move_on_after(ENGINE_LIMIT_S):
            await pidfd.wait_gone(monitors)
        for each in filter(procfs.is_same, monitors):
            text = "%s: container %s is left to its engine (pid %d, %s): end it by cmdStop"
            name = container_engines.container(each.pid) or "of unknown name"
            _log.warning(text, self._label, name, each.pid, procfs.program(each.pid))


async def retry_scan(scan: Callable[[], T]) -> T:
    """Return the result of *scan*, retried while there is no free descriptor for it."""
    while True:
        try:
            return scan()
        except OSError:
            await anyio.sleep(SCAN_RETRY_S)
