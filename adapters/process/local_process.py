"""Local process with its tree: output, exit status, probe and termination."""

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
from ...runtime.ports import Command, Ending, Exit, LogSink, NodeProcess, Presence, Probe
from ..system import threads
from ..system.own_node import own_node_name
from . import pidfd, reaping
from .keeping.memory import Remembered
from .oom import OomCount
from .output import OutputPump
from .port import http_probe
from .port.owner import PortOwner
from .procfs import Proc
from .tree import descendants, tag
from .tree.cgroup import ProcessGroup
from .tree.descendants import Tree
from .tree.termination import SCAN_RETRY_S, TreeTermination

_log = logging.getLogger(__name__)

KILL_RETRY_S = 0.5  # pause before SIGKILL is sent again
KILL_LIMIT_S = 10.0  # a process in uninterruptible sleep survives SIGKILL, so the wait is bounded
PIPE_LINGER_S = 1.0  # how long output of surviving processes is read after the end of a tree


class ProcessOwner(Protocol):
    """Launcher of a process, as far as the process uses it."""

    @property
    def instance(self) -> str:
        """Id of this proxy process in the environment of every child."""
        ...

    @property
    def oom_count(self) -> OomCount:
        """Counter of processes that the kernel killed when memory ran out."""
        ...

    def claims(self, process: LocalProcess, proc: Proc) -> bool:
        """Return True if *proc*, which the subreaper adopted, belongs to *process*."""
        ...

    def discard(self, process: LocalProcess) -> None:
        """Forget *process*, whose tree has ended."""
        ...

    def remember(self, process: LocalProcess, facts: str, ending: Ending) -> None:
        """Keep *facts* with *process*; see `NodeProcess.remember`."""
        ...


class LocalProcess(NodeProcess):
    """Process that `LocalLauncher` started, with all its descendants.

    Attributes:
        memory: What the guard got about it; None if it got nothing.
        is_detached: The proxy lets go of it.
        run_id: Unique id; SWAPCHART_RUN in the environment of the tree.
        start: Start time in clock ticks since boot.
    """

    def __init__(
        self,
        popen: subprocess.Popen[bytes] | None,
        *,
        pid: int,
        start: int,
        run_id: str,
        command: Command,
        pump: OutputPump,
        launcher: ProcessOwner,
        is_hook: bool,
    ) -> None:
        self._popen, self._pid = popen, pid
        self._pump, self._launcher, self._command = pump, launcher, command
        self._is_hook = is_hook
        self.run_id = run_id
        self.start = start
        self._tree = Tree(
            pid, start=start, run_id=run_id, tag=tag.make(self.instance, run_id),
            claims=lambda proc: launcher.claims(self, proc),
        )  # fmt: skip
        self._owner = PortOwner(self._tree, pid, start=start, command=command)
        self._exit: Exit | None = None
        self._exited = anyio.Event()
        self._watch_scope = anyio.CancelScope(shield=True)
        self._is_killed = False
        self._termination = TreeTermination(command.label)
        self.memory: Remembered | None = None
        self.is_detached = False

    @property
    def pid(self) -> int:
        """Process id of the leader; also the id of its group and session."""
        return self._pid

    @property
    def instance(self) -> str:
        """Id of the proxy that started it."""
        return self._launcher.instance

    @property
    def pipe(self) -> int:
        """Descriptor of its output."""
        return self._pump.fd

    @property
    def log(self) -> LogSink:
        """Where its output goes."""
        return self._pump.sink

    @log.setter
    def log(self, sink: LogSink) -> None:
        self._pump.sink = sink

    @property
    def node(self) -> str:
        """Name of this machine."""
        return own_node_name()

    async def presence(self) -> Presence:
        """Return ``alive`` until the leader has been reaped."""
        return "alive" if self._exit is None else "gone"

    @property
    def has_ended(self) -> bool:
        """True if the leader has been reaped."""
        return self._exit is not None

    @property
    def is_quiet(self) -> bool:
        """True if the log is complete, since the pipe is closed."""
        return self._pump.closed.is_set()

    async def _join(self, group: ProcessGroup) -> None:
        """Move the leader into *group*, which takes up to 20 ms; existing children stay out."""
        self._tree.group = group
        alone = anyio.CapacityLimiter(1)  # no queue for a thread, since its exit is awaited next
        try:
            await threads.run(group.add, self.pid, limiter=alone)
        except OSError as error:  # it has ended, or the kernel refuses
            _log.debug("pid %d is in no cgroup of its own: %s", self.pid, error)

    async def wait(self) -> Exit:
        """Wait until the leader is reaped; all its output is then in the log.

        ``Exit.certain`` is False if it survived SIGKILL until the launcher was closed.
        """
        await self._exited.wait()
        assert self._exit is not None
        return self._exit

    def terminate(self) -> None:
        """Send SIGTERM and SIGCONT to the group; a no-op if it has ended."""
        self._signal_group(signal.SIGTERM)
        self._signal_group(signal.SIGCONT)

    def kill(self) -> None:
        """Send SIGKILL to the whole tree, including daemons that left the group.

        Without a free file descriptor only the group is signaled; ``sweep`` finds the rest.
        """
        with suppress(OSError):
            self._kill()

    async def sweep(self, grace_s: float) -> int:
        """Wait *grace_s* seconds for the tree to end, then kill it; see `ProcessHandle`.

        Processes that left the group, which ``terminate`` did not signal, get SIGTERM at once.
        Processes that survive SIGKILL for 10 s, or may not be signaled, are logged and left.
        """
        killed: set[tuple[int, int]] = set()
        with anyio.move_on_after(grace_s) as grace:
            scans = 0
            while members := await self._termination.find(self._tree, self.tree):
                scans += 1
                if grace_s > 0:
                    self._termination.terminate(members, self.pid)
                if scans > 3:  # a tree that keeps forking must not use a whole core
                    await anyio.sleep(SCAN_RETRY_S)
                await pidfd.wait_gone(members)
        with anyio.move_on_after(KILL_LIMIT_S) as limit:
            find = partial(self._termination.find, self._tree, self._kill, is_killing=True)
            while grace.cancelled_caught and (members := await find()):
                killed.update((each.pid, each.start) for each in members)
                with anyio.move_on_after(KILL_RETRY_S):
                    await pidfd.wait_gone(members)
        if limit.cancelled_caught:
            _log.error("pid %d: some processes of its tree survived SIGKILL", self.pid)
        if not self._is_hook:
            await self._termination.await_engines(self._tree.engines)
        self._pump.read_nowait()  # output of the processes that have ended
        self._pump.stop(PIPE_LINGER_S)
        self._reap_adopted()
        if not limit.cancelled_caught:
            self._launcher.discard(self)
        return len(killed)

    async def probe(self, url: str, *, timeout_s: float) -> Probe:
        """GET *url* once; see `ProcessHandle`.

        The first success on each port is verified: see ``port.owner``. Under HTTPS and on other
        hosts than loopback the owner of the listener cannot be verified.
        """
        with anyio.move_on_after(timeout_s):
            response = await http_probe.get(url, timeout_s=timeout_s)
            if response.status != 200:
                self._owner.note_client()
                return Probe(is_ok=False, detail=response.detail)
            try:
                gone = self._exit is not None
                return await self._owner.verify(response.peer, self.tree, is_leaderless=gone)
            except OSError as error:
                return Probe(
                    is_ok=False,
                    detail=f"the owner of the listener cannot be verified: {error.strerror}",
                )
        return Probe(is_ok=False, detail="timeout")

    def is_known(self, proc: Proc) -> bool:
        """Return True if *proc*, running or not, was ever seen in this tree."""
        return (proc.pid, proc.start) in self._tree.known

    def tree(self) -> list[Proc]:
        """Return every running process of this tree, leader included; scans /proc."""
        return self._tree.scan(is_leaderless=self._exit is not None)

    def pids(self) -> list[int]:
        """Return the process ids of the tree; scans /proc."""
        return [process.pid for process in self.tree()]

    def _signal_group(self, signum: int) -> None:
        if self._exit is None:  # its id is not reused before it is reaped
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signum)
            return
        with suppress(OSError):  # no free descriptor to find the rest of the group
            for member in self.tree():
                if member.pgid == self.pid:
                    pidfd.send(member, signum)

    def _kill(self) -> list[Proc]:
        """Kill the tree; return its processes, without those that may not be signaled."""
        self._is_killed = True
        try:
            newest = descendants.newest_pid()
            members = self.tree()
        finally:
            if self._exit is None:  # in one call, so that no member forks meanwhile
                self._signal_group(signal.SIGKILL)
        if self._tree.group is not None:
            self._tree.group.kill(descendants.is_of_engine)
        killed = [each for each in members if self._termination.kill(each)]
        return killed + self._termination.newer(self._tree, newest, is_killing=True)

    async def watch(self, group: ProcessGroup | None) -> None:
        """Move the leader into *group*, wait for its exit and reap it; a task of the launcher."""
        try:
            with self._watch_scope:
                if group is not None:  # its pid is not reused before it is reaped
                    await self._join(group)
                await kept(self._watch)
        finally:
            if self._exit is None:
                self._exit = Exit(certain=False)
            self._exited.set()

    async def _watch(self) -> None:
        while self._exit is None:
            await pidfd.wait_child(self.pid)
            self._pump.read_nowait()  # its output is logged before its exit is reported
            with suppress(OSError):
                self.tree()  # before its id can be reused: the rest of its group
            self._reap()

    def _reap(self) -> None:
        try:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
        except ChildProcessError:  # other code reaped it, so its exit status is unknown
            self._end_popen(255)
            self._exit = Exit()
            return
        if pid != 0:
            code = os.waitstatus_to_exitcode(status)
            self._end_popen(code)
            has_grown = self._launcher.oom_count.has_grown()  # checked at each exit
            is_oom = has_grown and code != 0 and not self._is_killed
            self._exit = Exit(
                code=code if code >= 0 else None, signal=-code if code < 0 else None,
                out_of_memory=is_oom,
            )  # fmt: skip

    def _end_popen(self, code: int) -> None:
        if self._popen is not None:  # it would warn of a child that was not reaped
            self._popen.returncode = code

    def _reap_adopted(self) -> None:
        """Reap processes of the tree that have ended and were adopted by this process."""
        with suppress(OSError):
            for pid, start in self._tree.known:
                if pid != self.pid:  # `watch` reaps the leader
                    reaping.reap(pid, start)

    @property
    def group(self) -> ProcessGroup | None:
        """Cgroup of the tree; None if it has none."""
        return self._tree.group

    # ---- beyond the end of the proxy
    @property
    def is_remembered(self) -> bool:
        """True if it may outlive the proxy."""
        return self.memory is not None and self.memory.record >= 0

    def remember(self, facts: str, ending: Ending) -> None:
        """Keep *facts* with the guard, if it keeps any; see `NodeProcess`."""
        if not self._is_hook:
            self._launcher.remember(self, facts, ending)

    def detach(self) -> None:
        """Let go of it at the end of the launcher."""
        self.is_detached = True

    async def let_go(self) -> None:
        """End the tasks of a process that goes on."""
        self._watch_scope.cancel()
        await self._exited.wait()
        self._end_popen(0)
        self._pump.stop()
        await self._pump.closed.wait()

    def record(self) -> dict[str, object]:
        """Return what the guard and the next proxy have to know of it; see `guard_keeping`."""
        command, group = self._command, self._tree.group
        return {
            "run": self.run_id, "service": command.label, "instance": self.instance,
            "pid": self.pid, "start": self.start, "tag": tag.make(self.instance, self.run_id),
            "cgroup": "" if group is None else str(group.folder),
            "argv": command.argv, "cwd": command.cwd, "listens_at": command.listens_at,
        }  # fmt: skip

    async def end(self) -> None:
        """Kill the tree, close the pipe and wait for both; takes at most about 20 s."""
        self.kill()
        await self.sweep(0)
        with anyio.move_on_after(KILL_LIMIT_S):
            await self.wait()
        self._watch_scope.cancel()
        await self._exited.wait()
        if self._exit is not None and not self._exit.certain:  # `watch` was cancelled
            self._reap()
        self._pump.read_nowait()
        self._pump.stop()
        await self._pump.closed.wait()
        self._launcher.discard(self)
