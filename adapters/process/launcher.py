"""Launcher of local processes on Linux, with the standard library only.

Each process leads a session of its own and has a *tree*, which consists of all its descendants (see
`tree`). A guard process kills all trees if the proxy dies. Runs on asyncio, uvloop and trio; a
running child is never polled.

Measured choices: ``subprocess.Popen`` spawns in 0.6 ms on every loop (uvloop forks, which takes
31 ms in a 500 MB process); a pidfd reports an exit at once where asyncio waits for pipes to close;
``preexec_fn`` forks and is never used.
"""

from __future__ import annotations

import logging
import os
import secrets
import signal
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import anyio
import anyio.lowlevel
from anyio.abc import TaskGroup

from ...runtime.errors import EngineError
from ...runtime.fence import kept
from ...runtime.ports import Adopted, Command, Ending, Exit, LogSink, Node, NodeLauncher
from ..system.own_node import own_node
from . import oom, reaping
from .guard import Guard
from .keeping.keeper import Keeper, KeepSettings
from .keeping.takeover import TakeOver
from .kept_process import KeptProcess
from .kept_runs import KeptRuns
from .local_process import KILL_RETRY_S, LocalProcess
from .output import CappedSink, OutputPump
from .port import check
from .procfs import Proc
from .spawn import ignore_signals, spawn, unignore_signals
from .tree import tag
from .tree.adoption import AdoptedProcesses
from .tree.cgroup import ProcessGroup, ProcessGroups

HOOK_OUTPUT_BYTES = 1 << 16
REAP_PERIOD_S = 1.0

_log = logging.getLogger(__name__)


class LocalLauncher(NodeLauncher):
    """Launcher of processes on this machine: ``async with LocalLauncher() as launcher``.

    At the end of the block every remaining tree is killed.

    Args:
        guard: Run a small guard process that kills all trees if this process is killed.
        subreaper: Become the parent of daemons (PR_SET_CHILD_SUBREAPER) and reap them. Meant for
            a program that is a supervisor; an embedding application may not want it.
        drop_env: See the attribute.
        instance: Id of this proxy process in the environment of every child; None means random.
        keep: How processes may outlive the proxy; None means that none may.
        earlier: Guard of an earlier proxy, whose processes `adopt` returns; closed at the end.

    Attributes:
        drop_env: Environment variables that children do not inherit; may be changed at any time.
        oom_count: Counter of processes that the kernel killed when memory ran out.
        kept: Its runs that may outlive the proxy, and those of an earlier one.
    """

    name = "local"

    def __init__(
        self,
        *,
        guard: bool = True,
        subreaper: bool = False,
        drop_env: frozenset[str] = frozenset(),
        instance: str | None = None,
        keep: KeepSettings | None = None,
        earlier: TakeOver | None = None,
    ) -> None:
        self.instance = instance if instance is not None else secrets.token_hex(8)
        self._keeper = None if keep is None else Keeper(self.instance, keep)
        self._guard = self._keeper or (Guard(self.instance) if guard else None)
        self._earlier = earlier
        self.kept = KeptRuns(self, self._keeper, earlier)
        self._is_subreaper, self._was_subreaper = subreaper, False
        self.drop_env = drop_env
        self.oom_count = oom.OomCount()
        self._groups = ProcessGroups()
        self._live: set[LocalProcess] = set()
        self._since = 0  # start time of the first process, in clock ticks since boot
        self._adopted = AdoptedProcesses(
            self.instance, self._started_pids,
            is_known=lambda proc: any(process.is_known(proc) for process in self._live),
        )  # fmt: skip
        self._ignored: list[signal.Signals] = []
        self._tasks: TaskGroup | None = None
        self._stop, self._following = anyio.CancelScope(), anyio.CancelScope()

    @property
    def guard_pid(self) -> int:
        """Pid of the guard process; 0 while there is none."""
        return self._guard.pid if self._guard is not None else 0

    async def __aenter__(self) -> Self:
        """Start the guard and the tasks; in the main thread, stop ignoring signals."""
        if self._is_subreaper:
            self._groups.open()
        if self._guard is not None:
            try:
                self._guard.start(self._groups.folder)
            except OSError as error:
                raise EngineError(f"cannot start the guard process: {error.strerror}") from error
        self._ignored = unignore_signals()
        if self._is_subreaper:
            try:
                self._was_subreaper = reaping.set_subreaper(on=True)
            except OSError as error:  # then daemons are not reaped, and all else works
                _log.warning("cannot become a subreaper: %s", error.strerror)
                self._is_subreaper = False
        self._tasks = await anyio.create_task_group().__aenter__()
        if self._guard is not None:
            self._tasks.start_soon(self._guard.run)
        if self._is_subreaper:
            self._tasks.start_soon(self._run_reaper)
        if self._earlier is not None:
            self._tasks.start_soon(self._follow, self._earlier)
        if self._earlier is None or not any(run.fds for run in self._earlier.runs.values()):
            self.decide()
        return self

    async def _follow(self, earlier: TakeOver) -> None:
        with self._following:
            await earlier.listen()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Kill the remaining trees, release the guard and wait for both, shielded from cancel."""
        tasks, self._tasks = self._tasks, None
        assert tasks is not None
        with anyio.CancelScope(shield=True):
            left = [process for process in self._live if process.is_detached]
            async with anyio.create_task_group() as ends:
                for process in tuple(self._live):
                    ends.start_soon(process.let_go if process.is_detached else process.end)
            self._stop.cancel()
            self._following.cancel()
            if self._keeper is not None and left:
                await self._keeper.leave()
                for process in left:  # the guard has descriptors of its own
                    if process.memory is not None:
                        process.memory.close(process.log)
            elif self._guard is not None:
                await self._guard.release()
            if self._is_subreaper:
                if not left:  # else a stray may be one of theirs
                    await self._adopted.kill_strays(self._since, KILL_RETRY_S)
                self.reap()
                reaping.set_subreaper(on=self._was_subreaper)
            await self._groups.close()
            ignore_signals(self._ignored)
        # Without *error*, which the task group would wrap in an exception group.
        await tasks.__aexit__(None, None, None)

    async def start(self, command: Command, log: LogSink) -> LocalProcess:
        """Start *command*; see `Launcher`. Errors name the program, never its arguments."""
        return await self._start(command, log, is_hook=False)

    async def start_client(self, command: Command, log: LogSink) -> LocalProcess:
        """Start a client of a container engine, which leaves daemons of the engine behind."""
        return await self._start(command, log, is_hook=True)

    async def _start(self, command: Command, log: LogSink, *, is_hook: bool) -> LocalProcess:
        await anyio.lowlevel.checkpoint_if_cancelled()
        if command.listens_at is not None:
            await check.check_free(command.listens_at)
        if self._tasks is None:
            raise EngineError("the launcher is closed")
        run_id = secrets.token_hex(8)
        with tag.applied(tag.make(self.instance, run_id)):
            popen, start, output = spawn(command, self._environment(command, run_id))
        pump = OutputPump(output, log)
        process = LocalProcess(
            popen, pid=popen.pid, start=start, run_id=run_id, command=command, pump=pump,
            launcher=self, is_hook=is_hook,
        )  # fmt: skip
        self._take(process, pump, None if is_hook else self._groups.make(run_id))
        return process

    def _take(self, process: LocalProcess, pump: OutputPump, group: ProcessGroup | None) -> None:
        assert self._tasks is not None, "checked by the caller"
        self._live.add(process)
        self._since = self._since or process.start
        if self._guard is not None:
            self._guard.add(process.pid, process.start)
        self._tasks.start_soon(process.watch, group)
        self._tasks.start_soon(pump.run)

    async def run(self, command: Command, log: LogSink) -> Exit:
        """Run *command* until it exits; see `Launcher`. The first 64 KiB of output are logged."""
        sink = CappedSink(log, HOOK_OUTPUT_BYTES)
        process = await self._start(command, sink, is_hook=True)
        try:
            return await process.wait()
        finally:
            with anyio.CancelScope(shield=True):
                await process.end()
            sink.finish()

    async def nodes(self) -> tuple[Node]:
        """Return this machine."""
        return (own_node(),)

    def discard(self, process: LocalProcess) -> None:
        """Forget a process whose tree has ended; a no-op for an unknown one."""
        if process in self._live and process.has_ended:
            self._live.discard(process)
            if process.group is not None:
                self._groups.end(process.group)
            if self._guard is not None:
                self._guard.discard(process.pid)
            self.kept.forget(process)

    # ---- beyond the end of the proxy
    async def adopt(self) -> Sequence[Adopted]:
        """Return the processes that the guard of an earlier proxy has kept; see `NodeLauncher`."""
        return self.kept.adoptable()

    def decide(self) -> None:
        """Note that the processes of an earlier proxy are taken over or ended from now on."""
        self.kept.decide()

    def take(self, process: KeptProcess, pump: OutputPump) -> None:
        """Watch a process that was adopted, as if it was started here."""
        self.decide()
        if self._guard is not None:
            self._guard.take_over(process.instance)
        self._take(process, pump, None)
        self.kept.remember_again(process)

    def remember(
        self, process: LocalProcess, facts: str, ending: Ending,
        more: Mapping[str, Any] | None = None,
    ) -> None:  # fmt: skip
        """Keep *facts* with *process*, if it has not ended; see `KeptRuns.remember`."""
        if process in self._live:
            self.kept.remember(process, facts, ending, more)

    def guard_process(self, proc: Proc) -> None:
        """Have the guard end the group of *proc*, which this launcher did not start."""
        if self._guard is not None:
            self._guard.add(proc.pid, proc.start)

    def unguard_process(self, proc: Proc) -> None:
        """Have the guard forget *proc*; a no-op for an unknown one."""
        if self._guard is not None:
            self._guard.discard(proc.pid)

    def reap(self) -> None:
        """Reap adopted daemons that have ended; a no-op unless this process is a subreaper."""
        if self._is_subreaper:
            self._adopted.reap()

    async def _run_reaper(self) -> None:
        with self._stop:
            await kept(self._reap_periodically)

    async def _reap_periodically(self) -> None:
        while True:
            await anyio.sleep(REAP_PERIOD_S)
            self.reap()

    def _started_pids(self) -> set[int]:
        """Return the pids of the children that this launcher started."""
        starters = {process.pid for process in self._live if not process.has_ended}
        return starters | {self.guard_pid}

    def claims(self, process: LocalProcess, proc: Proc) -> bool:
        """Return True if *proc*, an adopted process without a marker, can be of *process* only."""
        is_stray = self._is_subreaper and self._adopted.is_stray(proc)
        return is_stray and [p for p in self._live if p.start <= proc.start] == [process]

    def own_environment(self) -> dict[str, str]:
        """Return the environment of this process, as far as children inherit it."""
        return {name: value for name, value in os.environ.items() if name not in self.drop_env}

    def _environment(self, command: Command, run_id: str) -> dict[str, str]:
        own = self.own_environment()
        markers = {
            "SWAPCHART_INSTANCE": self.instance,
            "SWAPCHART_SERVICE": command.label,
            "SWAPCHART_RUN": run_id,
        }
        return {**own, **command.env, **markers}
