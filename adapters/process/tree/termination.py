"""How the processes of a tree are ended: asked, killed, or named in the log where neither works."""

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

ENGINE_S = 2.0  # so long the monitor of a container may take to end after its client
LOOK_AGAIN_S = 0.05
CONFIRMATIONS = 3  # each finds a tree that renews itself every 2 ms in nine of ten cases
CONFIRM_S = 0.004

T = TypeVar("T")

_log = logging.getLogger(__name__)


class Ending:
    """The end of one tree: nobody is asked twice, and each failure is logged once.

    Args:
        label: Name of the service, for the log.
    """

    def __init__(self, label: str) -> None:
        self._label = label
        self._asked: set[tuple[int, int]] = set()  # pid and start
        self._denied: set[tuple[int, int]] = set()

    def ask(self, members: Iterable[Proc], group: int) -> None:
        """Ask what is not in process group *group* to end; ``terminate`` asked the others."""
        new = [each for each in members if (each.pid, each.start) not in self._asked]
        self._asked.update((each.pid, each.start) for each in new)
        for member in new:
            if member.pgid != group:
                pidfd.send(member, signal.SIGTERM)
                pidfd.send(member, signal.SIGCONT)

    def kill(self, proc: Proc) -> bool:
        """Kill one process; returns False, and logs it once, if it is not ours to signal."""
        if pidfd.send(proc, signal.SIGKILL) or not users.is_denied(proc):
            return True
        if (proc.pid, proc.start) not in self._denied:
            self._denied.add((proc.pid, proc.start))
            _log.error(
                "%s: pid %d (%s) of user %s is left running: user %s may not end it",
                self._label, proc.pid, procfs.program(proc.pid),
                users.name(users.uid(proc.pid)), users.name(os.geteuid()),
            )  # fmt: skip
        return False

    async def find(
        self, tree: Tree, at: Callable[[], list[Proc]], *, is_killing: bool = False
    ) -> list[Proc]:
        """Return what *at* finds of *tree*; that it is nothing is confirmed a few times.

        A process that is being forked has a number for a moment before it can be found.
        """
        newest = await look(descendants.newest_pid)
        members = await look(at)
        for _ in range(CONFIRMATIONS):
            if members:
                break
            await anyio.sleep(CONFIRM_S)
            before, newest = newest, await look(descendants.newest_pid)
            members = await look(partial(self.newer, tree, before, is_killing=is_killing))
        return members

    def newer(self, tree: Tree, newest: int, *, is_killing: bool) -> list[Proc]:
        """Return, and kill if so asked, what of *tree* was started after pid *newest* had been."""
        return [each for each in tree.newer(newest) if not is_killing or self.kill(each)]

    async def await_engines(self, engines: Iterable[Proc]) -> None:
        """Wait a moment until the containers among *engines* have ended; log those that have not.

        A container that its client has left behind is its engine's to end.
        """
        monitors = container_engines.monitors(engines)
        with anyio.move_on_after(ENGINE_S):
            await pidfd.wait_gone(monitors)
        for each in filter(procfs.is_same, monitors):
            text = "%s: container %s is left to its engine (pid %d, %s): end it by cmdStop"
            name = container_engines.container(each.pid) or "of unknown name"
            _log.warning(text, self._label, name, each.pid, procfs.program(each.pid))


async def look(at: Callable[[], T]) -> T:
    """Look at /proc, again and again while there is no descriptor left to look with."""
    while True:
        try:
            return at()
        except OSError:
            await anyio.sleep(LOOK_AGAIN_S)
