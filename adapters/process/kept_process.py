"""Local process that an earlier proxy has started and left running.

It is no child of this process: its exit status is not known, and its pid may be reused as soon as
it has ended, so it is signaled by pidfd only. Until `attach` it belongs to the guard of that proxy.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import anyio

from ...runtime.ports import Command, Exit, LogSink
from . import pidfd, procfs
from .keeping import guard_keeping
from .keeping.memory import Remembered
from .keeping.takeover import KeptRun, TakeOver
from .local_process import KILL_LIMIT_S, LocalProcess, ProcessOwner
from .output import OutputPump
from .port.owner import PortOwner
from .procfs import Proc
from .tree.cgroup import ProcessGroup


class Adopter(ProcessOwner, Protocol):
    """Launcher that adopts."""

    def decide(self) -> None:
        """Note that the processes of an earlier proxy are taken over or ended from now on."""
        ...

    def take(self, process: KeptProcess, pump: OutputPump) -> None:
        """Watch *process* as one of its own."""
        ...


class KeptProcess(LocalProcess):
    """A process that was adopted, or may be.

    Args:
        run: The run, as the guard has kept it.
        earlier: The guard.
        launcher: Launcher that adopts it.
    """

    def __init__(self, run: KeptRun, earlier: TakeOver, launcher: Adopter) -> None:
        record, (pipe, ring, known) = run.record, run.fds
        self._run, self._earlier, self._adopter = run, earlier, launcher
        own = record.get("client", record)  # of a container its client, which is the leader here
        self._leader = _leader(int(own["pid"]), int(own["start"]))
        command = Command(
            argv=tuple(record["argv"]), cwd=record["cwd"], label=run.service,
            listens_at=record["listens_at"],
        )  # fmt: skip
        super().__init__(
            None, pid=self._leader.pid, start=self._leader.start, run_id=run.run,
            command=command, pump=OutputPump(_pipe(pipe), _Nowhere()), launcher=launcher,
            is_hook="client" in record,  # it leaves daemons of the engine behind
        )  # fmt: skip
        self.memory = Remembered(pipe=self.pipe, ring=ring, record=known)
        if "since" in own:  # an earlier client, which is older than the listener
            self._owner = PortOwner(self._tree, self.pid, start=int(own["since"]), command=command)
        if record["cgroup"]:
            self._tree.group = ProcessGroup(Path(record["cgroup"]))

    @property
    def instance(self) -> str:
        """Id of the proxy that started it."""
        return self._run.instance

    @property
    def kept_record(self) -> Mapping[str, Any]:
        """The record that the guard has kept of it."""
        return self._run.record

    def attach(self, log: LogSink) -> None:
        """Take it over: write the output that was kept, and all later output, to *log*."""
        with suppress(OSError):  # the guard is gone, but we have what it kept
            self._earlier.adopt(self.run_id)
        self._run.fds = ()  # they are ours now
        assert self.memory is not None, "set at the beginning"
        log.write(guard_keeping.read_ring(self.memory.ring))
        self.memory.follow(log)
        self._pump.sink = log
        self._adopter.take(self, self._pump)

    @property
    def is_running(self) -> bool:
        """True if it has not ended."""
        return procfs.is_same(self._leader)

    def drop(self) -> None:
        """Have the guard forget it, and do the same."""
        with suppress(OSError):
            self._earlier.adopt(self.run_id)
        self._close()

    def _close(self) -> None:
        fds, self._run.fds = self._run.fds, ()
        self._pump.close()
        for fd in fds[1:]:
            os.close(fd)

    async def dismiss(self) -> bool:
        """Let the guard end it with its hooks, or kill it if the guard is gone."""
        self._adopter.decide()
        self._close()
        self._earlier.end(self.run_id)
        if await self._run.wait_ended():
            return True
        with anyio.move_on_after(KILL_LIMIT_S), suppress(OSError):
            while members := self._kill():
                await pidfd.wait_gone(members)
        return False

    # ---- not a child
    async def _watch(self) -> None:
        await pidfd.wait_gone([self._leader])
        self._pump.read_nowait()
        with suppress(OSError):
            self.tree()
        has_grown = self._launcher.oom_count.has_grown()
        self._exit = Exit(out_of_memory=has_grown and not self._is_killed)

    def _reap(self) -> None:
        if self._exit is None or not self._exit.certain:
            with suppress(OSError):
                if not procfs.is_same(self._leader):
                    self._exit = Exit()

    def _signal_group(self, signum: int) -> None:
        with suppress(OSError):
            if self._exit is None and procfs.is_same(self._leader):
                os.killpg(self.pid, signum)
                return
            for member in self.tree():
                if member.pgid == self.pid:
                    pidfd.send(member, signum)


class _Nowhere:
    """Sink of output before a log is attached; nothing is read until then."""

    def write(self, data: bytes) -> None:
        """Drop *data*."""


def _leader(pid: int, start: int) -> Proc:
    return Proc(pid=pid, ppid=0, pgid=pid, sid=pid, start=start, is_alive=True)


def _pipe(fd: int) -> int:
    """Return *fd* if it is a pipe; else the output was closed, and so is the pipe in its place."""
    if stat.S_ISFIFO(os.fstat(fd).st_mode):
        return fd
    os.close(fd)
    near, far = os.pipe()
    os.close(far)
    return near
