"""Local processes: started, watched, ended and proved by Linux means and the standard library.

Each process leads a session of its own, and has a *tree*: whatever descends from it, wherever it
went (``proctree``). A guard process ends all trees when we die. Runs on asyncio, uvloop and trio;
nothing here polls a live child.

Measured choices: ``subprocess.Popen`` spawns in 0.6 ms
on every loop (uvloop forks: 31 ms in a 500 MB process); a pidfd tells an exit at once where
asyncio waits for pipes to close; ``preexec_fn`` forks and is never used.
"""

from __future__ import annotations

import logging
import os
import secrets
import signal
import subprocess
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import Self

import anyio
import anyio.lowlevel
from anyio.abc import TaskGroup

from ...runtime.errors import EngineError
from ...runtime.fence import kept
from ...runtime.ports import Command, Exit, Launcher, LogSink, Probe, ProcessHandle
from ..system import threads
from . import container_engines, procfs
from .guard import Guardian
from .output import CappedSink, LogPump
from .port import check, http_probe
from .port.owner import PortOwner
from .procfs import Proc
from .spawn import ignore_signals, spawn, unignore_signals
from .tree import descendants, tag
from .tree.adoption import Adopted
from .tree.cgroup import ProcessGroup, ProcessGroups
from .tree.descendants import Tree
from .tree.termination import LOOK_AGAIN_S, Ending

KILL_AGAIN_S = 0.5
KILL_LIMIT_S = 10.0  # a process in uninterruptible sleep outlives SIGKILL: do not wait for ever
PIPE_LINGER_S = 1.0
HOOK_OUTPUT_BYTES = 1 << 16
REAP_PERIOD_S = 1.0

_log = logging.getLogger(__name__)


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
        pump: LogPump,
        launcher: LocalLauncher,
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
        try:
            await threads.run(group.add, self.pid)
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
                await procfs.wait_gone(members)
        with anyio.move_on_after(KILL_LIMIT_S) as limit:
            find = partial(self._ending.find, self._tree, self._kill, is_killing=True)
            while grace.cancelled_caught and (members := await find()):
                killed.update((each.pid, each.start) for each in members)
                with anyio.move_on_after(KILL_AGAIN_S):
                    await procfs.wait_gone(members)
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
                    procfs.send(member, signum)

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
            self._tree.group.kill(container_engines.is_daemon)
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
            await procfs.wait_child(self.pid)
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
                    procfs.reap(pid, start)

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


class LocalLauncher(Launcher):
    """Starts processes on this machine; use it as ``async with LocalLauncher() as launcher``.

    On leaving the block every tree that is left is killed.

    Args:
        guard: Keep a small guard process that ends everything if we are killed.
        subreaper: Become the parent of daemons (PR_SET_CHILD_SUBREAPER) and reap them. For a
            program that is a supervisor; one that embeds us may not want it.
        drop_env: See the attribute.
        instance: Id of this proxy process, in every child's environment; random if None.

    Attributes:
        drop_env: Variables of ours that no child inherits; for what is started from now on.
        oom_count: Tells of children that the kernel killed for want of memory.
    """

    def __init__(
        self,
        *,
        guard: bool = True,
        subreaper: bool = False,
        drop_env: frozenset[str] = frozenset(),
        instance: str | None = None,
    ) -> None:
        self.instance = instance if instance is not None else secrets.token_hex(8)
        self._guardian = Guardian(self.instance) if guard else None
        self._is_subreaper, self._was_subreaper = subreaper, False
        self.drop_env = drop_env
        self.oom_count = procfs.OomCount()
        self._groups = ProcessGroups()
        self._live: set[LocalProcess] = set()
        self._since = 0  # start of the first process, in clock ticks since boot
        self._adopted = Adopted(
            self.instance, self._starters,
            is_known=lambda proc: any(process.is_known(proc) for process in self._live),
        )  # fmt: skip
        self._ignored: list[signal.Signals] = []
        self._tasks: TaskGroup | None = None
        self._stop = anyio.CancelScope()

    @property
    def guard_pid(self) -> int:
        """Pid of the guard process; 0 while there is none."""
        return self._guardian.pid if self._guardian is not None else 0

    async def __aenter__(self) -> Self:
        """Start the guard and the tasks; in the main thread, put ignored signals right."""
        if self._is_subreaper:  # a program that is a supervisor
            self._groups.open()
        if self._guardian is not None:
            try:
                self._guardian.start(self._groups.folder)
            except OSError as error:
                raise EngineError(f"cannot start the guard process: {error.strerror}") from error
        self._ignored = unignore_signals()
        if self._is_subreaper:
            try:
                self._was_subreaper = procfs.set_subreaper(on=True)
            except OSError as error:  # what is lost is the reaping of daemons, no more
                _log.warning("cannot become a subreaper: %s", error.strerror)
                self._is_subreaper = False
        self._tasks = await anyio.create_task_group().__aenter__()
        if self._guardian is not None:
            self._tasks.start_soon(self._guardian.run)
        if self._is_subreaper:
            self._tasks.start_soon(self._reap_often)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Kill what is left, let the guard go, and wait for both; not cut short by a cancel."""
        tasks, self._tasks = self._tasks, None
        assert tasks is not None
        with anyio.CancelScope(shield=True):
            async with anyio.create_task_group() as ends:
                for process in tuple(self._live):
                    ends.start_soon(process.end)
            self._stop.cancel()
            if self._guardian is not None:
                await self._guardian.leave()
            if self._is_subreaper:
                await self._adopted.end_strays(self._since, KILL_AGAIN_S)
                self.reap()
                procfs.set_subreaper(on=self._was_subreaper)
            await self._groups.close()
            ignore_signals(self._ignored)
        # Not told of *error*: it would come out wrapped in an exception group.
        await tasks.__aexit__(None, None, None)

    async def start(self, command: Command, log: LogSink) -> LocalProcess:
        """Start *command*; see the port. Errors name the program, never its arguments."""
        return await self._start(command, log, is_hook=False)

    async def _start(self, command: Command, log: LogSink, *, is_hook: bool) -> LocalProcess:
        await anyio.lowlevel.checkpoint_if_cancelled()
        if command.listens_at is not None:
            await check.check_free(command.listens_at)
        if self._tasks is None:
            raise EngineError("the launcher is closed")
        run_id = secrets.token_hex(8)
        with tag.worn(tag.make(self.instance, run_id)):
            popen, start, output = spawn(command, self._environment(command, run_id))
        pump = LogPump(output, log)
        process = LocalProcess(
            popen, start=start, run_id=run_id, command=command, pump=pump, launcher=self,
            is_hook=is_hook,
        )  # fmt: skip
        self._live.add(process)
        self._since = self._since or start
        if self._guardian is not None:
            self._guardian.add(process.pid, process.start)
        self._tasks.start_soon(process.watch, None if is_hook else self._groups.make(run_id))
        self._tasks.start_soon(pump.run)
        return process

    async def run(self, command: Command, log: LogSink) -> Exit:
        """Run *command* to its end; see the port. The first 64 KiB of its output are logged."""
        sink = CappedSink(log, HOOK_OUTPUT_BYTES)
        process = await self._start(command, sink, is_hook=True)
        try:
            return await process.wait()
        finally:
            with anyio.CancelScope(shield=True):
                await process.end()
            sink.finish()

    def forget(self, process: LocalProcess) -> None:
        """Drop a process of which nothing is left; of an unknown one, nothing happens."""
        if process in self._live and process.has_ended:
            self._live.discard(process)
            if process.group is not None:
                self._groups.end(process.group)
            if self._guardian is not None:
                self._guardian.discard(process.pid)

    def reap(self) -> None:
        """Reap the daemons that we adopted and that have ended; nothing if not a subreaper."""
        if self._is_subreaper:
            self._adopted.reap()

    async def _reap_often(self) -> None:
        with self._stop:
            await kept(self._reap_now_and_then)

    async def _reap_now_and_then(self) -> None:
        while True:
            await anyio.sleep(REAP_PERIOD_S)
            self.reap()

    def _starters(self) -> set[int]:
        """Return the pids of our children that we started ourselves."""
        starters = {process.pid for process in self._live if not process.has_ended}
        return starters | {self.guard_pid}

    def claims(self, process: LocalProcess, proc: Proc) -> bool:
        """Tell whether *proc*, which nothing marks, was handed to us and is of *process* only."""
        is_stray = self._is_subreaper and self._adopted.is_stray(proc)
        return is_stray and [p for p in self._live if p.start <= proc.start] == [process]

    def _environment(self, command: Command, run_id: str) -> dict[str, str]:
        own = {name: value for name, value in os.environ.items() if name not in self.drop_env}
        markers = {
            "SWAPCHART_INSTANCE": self.instance,
            "SWAPCHART_SERVICE": command.label,
            "SWAPCHART_RUN": run_id,
        }
        return {**own, **command.env, **markers}
