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
from types import TracebackType
from typing import Self

import anyio
import anyio.lowlevel
from anyio.abc import TaskGroup

from ...runtime.errors import EngineError
from ...runtime.fence import kept
from ...runtime.ports import Command, Exit, Launcher, LogSink
from . import oom, reaping
from .guard import Guard
from .local_process import KILL_AGAIN_S, LocalProcess
from .output import CappedSink, OutputPump
from .port import check
from .procfs import Proc
from .spawn import ignore_signals, spawn, unignore_signals
from .tree import tag
from .tree.adoption import Adopted
from .tree.cgroup import ProcessGroups

HOOK_OUTPUT_BYTES = 1 << 16
REAP_PERIOD_S = 1.0

_log = logging.getLogger(__name__)


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
        self._guardian = Guard(self.instance) if guard else None
        self._is_subreaper, self._was_subreaper = subreaper, False
        self.drop_env = drop_env
        self.oom_count = oom.OomCount()
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
                self._was_subreaper = reaping.set_subreaper(on=True)
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
                reaping.set_subreaper(on=self._was_subreaper)
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
        pump = OutputPump(output, log)
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
