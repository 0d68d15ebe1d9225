"""One running process with its tree: output, exit, probe, and end."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
from contextlib import suppress
from functools import partial
from typing import Protocol

import anyio
import anyio.lowlevel

from ...runtime.fence import kept
from ...runtime.ports import Command, Exit, Probe, ProcessHandle
from ..system import threads
from . import pidfd, reaping
from .oom import OomCount
from .output import OutputPump
from .port import http_probe
from .port.owner import PortOwner
from .procfs import Proc
from .tree import descendants, tag
from .tree.cgroup import ProcessGroup
from .tree.descendants import Tree
from .tree.termination import LOOK_AGAIN_S, Ending

_log = logging.getLogger(__name__)


KILL_AGAIN_S = 0.5


KILL_LIMIT_S = 10.0  # a process in uninterruptible sleep outlives SIGKILL: do not wait for ever


PIPE_LINGER_S = 1.0


class ProcessOwner(Protocol):
    """The launcher, as a process that it started sees it."""

    @property
    def instance(self) -> str:
        """Id of this proxy process, in every child's environment."""
        ...

    @property
    def oom_count(self) -> OomCount:
        """Counts children that the kernel killed for want of memory."""
        ...

    def claims(self, process: LocalProcess, proc: Proc) -> bool:
        """Return True if *proc*, which was handed to us, belongs to *process*."""
        ...

    def forget(self, process: LocalProcess) -> None:
        """Drop *process*, whose tree is gone."""
        ...


class LocalProcess(ProcessHandle):
    """One process that ``LocalLauncher`` started, with everything that descends from it.

    Attributes:
        run_id: Value of SWAPCHART_RUN in the environment of its tree; unique.
        start: When it started, in clock ticks since boot.
    """

    def __init__(
        self,
        popen: subprocess.Popen[bytes],
        *,
        start: int,
        run_id: str,
        command: Command,
        pump: OutputPump,
        launcher: ProcessOwner,
        is_hook: bool,
    ) -> None:
        self._popen, self._pump, self._launcher = popen, pump, launcher
        self._is_hook = is_hook
        self.run_id = run_id
        self.start = start
        self._tree = Tree(
            popen.pid, start=start, run_id=run_id, tag=tag.make(launcher.instance, run_id),
            claims=lambda proc: launcher.claims(self, proc),
        )  # fmt: skip
        self._owner = PortOwner(self._tree, popen.pid, start=start, command=command)
        self._exit: Exit | None = None
        self._exited = anyio.Event()
        self._watch_scope = anyio.CancelScope(shield=True)
        self._is_killed = False
        self._ending = Ending(command.label)

    @property
    def pid(self) -> int:
        """Process id of the leader; also the id of its group and session."""
        return self._popen.pid

    @property
    def has_ended(self) -> bool:
        """Tell whether the leader has been reaped."""
        return self._exit is not None

    @property
    def is_quiet(self) -> bool:
        """Tell whether the log is complete: the pipe is closed, nothing more can come."""
        return self._pump.closed.is_set()

    async def _join(self, group: ProcessGroup) -> None:
        """Move the leader into *group*, which takes up to 20 ms; what it has forked stays out."""
        self._tree.group = group
        alone = anyio.CapacityLimiter(1)  # its exit is waited for after this: queue for no thread
        try:
            await threads.run(group.add, self.pid, limiter=alone)
        except OSError as error:  # it has ended, or the kernel refuses
            _log.debug("pid %d is in no cgroup of its own: %s", self.pid, error)

    async def wait(self) -> Exit:
        """Wait until the leader is reaped; what it wrote before is then in the log.

        ``Exit.certain`` is False if it outlived SIGKILL and the launcher was closed over it.
        """
        await self._exited.wait()
        assert self._exit is not None
        return self._exit

    def terminate(self) -> None:
        """Send SIGTERM and SIGCONT to the group; nothing happens when it has ended."""
        self._signal_group(signal.SIGTERM)
        self._signal_group(signal.SIGCONT)

    def kill(self) -> None:
        """Send SIGKILL to the whole tree, daemons that left the group included.

        Out of descriptors only the group is reached at once; ``sweep`` finds the rest.
        """
        with suppress(OSError):
            self._kill()

    async def sweep(self, grace_s: float) -> int:
        """Wait *grace_s* seconds for the tree to empty, then kill it; see the port.

        What left the group was not reached by ``terminate``: it is asked to end at once.
        Bounded: what outlives SIGKILL by 10 s is logged and left. So is, at once, what we may not
        signal.
        """
        killed: set[tuple[int, int]] = set()
        with anyio.move_on_after(grace_s) as grace:
            looks = 0
            while members := await self._ending.find(self._tree, self.tree):
                looks += 1
                if grace_s > 0:
                    self._ending.ask(members, self.pid)
                if looks > 3:  # a tree that renews itself is not worth a core
                    await anyio.sleep(LOOK_AGAIN_S)
                await pidfd.wait_gone(members)
        with anyio.move_on_after(KILL_LIMIT_S) as limit:
            find = partial(self._ending.find, self._tree, self._kill, is_killing=True)
            while grace.cancelled_caught and (members := await find()):
                killed.update((each.pid, each.start) for each in members)
                with anyio.move_on_after(KILL_AGAIN_S):
                    await pidfd.wait_gone(members)
        if limit.cancelled_caught:
            _log.error("pid %d: some of its tree outlived SIGKILL", self.pid)
        if not self._is_hook:
            await self._ending.await_engines(self._tree.engines)
        self._pump.read_nowait()  # the last words of who was waited for
        self._pump.stop(PIPE_LINGER_S)
        self._reap_adopted()
        if not limit.cancelled_caught:
            self._launcher.forget(self)
        return len(killed)

    async def probe(self, url: str, *, timeout_s: float) -> Probe:
        """GET *url* once; see the port.

        The first success on each port is proved: see ``procowner``. Not proved, because it cannot
        be: https, and another host than loopback.
        """
        with anyio.move_on_after(timeout_s):
            answer = await http_probe.get(url, timeout_s=timeout_s)
            if answer.status != 200:
                self._owner.note_client()
                return Probe(is_ok=False, detail=answer.detail)
            try:
                gone = self._exit is not None
                return await self._owner.prove(answer.peer, self.tree, is_leaderless=gone)
            except OSError as error:
                return Probe(is_ok=False, detail=f"cannot be proved: {error.strerror}")
        return Probe(is_ok=False, detail="timeout")

    def is_known(self, proc: Proc) -> bool:
        """Tell whether *proc*, dead or alive, was ever seen in this tree."""
        return (proc.pid, proc.start) in self._tree.known

    def tree(self) -> list[Proc]:
        """Find every living process of this tree, the leader included; a scan of /proc."""
        return self._tree.look(is_leaderless=self._exit is not None)

    def _signal_group(self, signum: int) -> None:
        if self._exit is None:  # the unreaped leader keeps the number from being given again
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signum)
            return
        with suppress(OSError):  # no descriptor left to look for the rest of the group
            for member in self.tree():
                if member.pgid == self.pid:
                    pidfd.send(member, signum)

    def _kill(self) -> list[Proc]:
        """Kill the tree; returns who was in it, without those we may not signal."""
        self._is_killed = True
        try:
            newest = descendants.newest_pid()
            members = self.tree()
        finally:
            if self._exit is None:  # in one call, so that no member forks a way out
                self._signal_group(signal.SIGKILL)
        if self._tree.group is not None:
            self._tree.group.kill(descendants.is_engines)
        killed = [each for each in members if self._ending.kill(each)]
        return killed + self._ending.newer(self._tree, newest, is_killing=True)

    async def watch(self, group: ProcessGroup | None) -> None:
        """Move the leader into *group*, wait for its end and reap it; a task of the launcher."""
        try:
            with self._watch_scope:
                if group is not None:  # as long as nobody else reaps it, its number is its own
                    await self._join(group)
                await kept(self._watch)
        finally:
            if self._exit is None:
                self._exit = Exit(certain=False)
            self._exited.set()

    async def _watch(self) -> None:
        while self._exit is None:
            await pidfd.wait_child(self.pid)
            self._pump.read_nowait()  # its last words are logged before anybody hears
            with suppress(OSError):
                self.tree()  # while its number is taken: who is left of its group?
            self._reap()

    def _reap(self) -> None:
        try:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
        except ChildProcessError:  # somebody else reaped it: how it ended is lost
            self._popen.returncode = 255
            self._exit = Exit()
            return
        if pid != 0:
            code = os.waitstatus_to_exitcode(status)
            self._popen.returncode = code
            has_grown = self._launcher.oom_count.has_grown()  # asked at each end: it was then
            is_oom = has_grown and code != 0 and not self._is_killed
            self._exit = Exit(
                code=code if code >= 0 else None, signal=-code if code < 0 else None,
                out_of_memory=is_oom,
            )  # fmt: skip

    def _reap_adopted(self) -> None:
        """Reap what was seen in the tree, has ended, and has become our child meanwhile."""
        with suppress(OSError):
            for pid, start in self._tree.known:
                if pid != self.pid:  # the leader's status is for watch
                    reaping.reap(pid, start)

    @property
    def group(self) -> ProcessGroup | None:
        """The tree's cgroup, if it has one."""
        return self._tree.group

    async def end(self) -> None:
        """Kill the tree, close the pipe, and wait for both; at most some 20 s."""
        self.kill()
        await self.sweep(0)
        with anyio.move_on_after(KILL_LIMIT_S):
            await self.wait()
        self._watch_scope.cancel()
        await self._exited.wait()
        if self._exit is not None and not self._exit.certain:  # nobody was left to watch it
            self._reap()
        self._pump.read_nowait()
        self._pump.stop()
        await self._pump.closed.wait()
        self._launcher.forget(self)
