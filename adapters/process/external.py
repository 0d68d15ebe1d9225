"""External servers: servers that run outside of the tree of their command.

Such a server belongs to a service manager or a daemon (``systemctl start x``, ``lms load``), or
another program runs it. The command, if there is one, may end with code 0 while the server runs.
Nothing here sends a signal: neither the command nor a process that it leaves behind is in a tree,
and the guard process does not know them. A run of an external server lasts until

- the command ends with another code before the first successful probe,
- ``terminate`` was called, after the stop command, and the server no longer responds, or
- ``kill`` was called.

Readiness and liveness probes decide about everything else.
"""

from __future__ import annotations

import logging
import os
import secrets
import subprocess
from collections.abc import Sequence
from types import TracebackType
from typing import Self

import anyio
from anyio.abc import TaskGroup

from ...runtime.errors import EngineError
from ...runtime.fence import fenced, kept
from ...runtime.ports import (
    Adopted,
    Command,
    Exit,
    LogSink,
    Node,
    NodeLauncher,
    NodeProcess,
    Probe,
    ProcessHandle,
)
from . import pidfd
from .launcher import LocalLauncher
from .output import OutputPump
from .port import http_probe
from .spawn import spawn
from .tree import tag

_FAILURES, _PERIOD_S = 3, 1.0  # without a command, this many failures so far apart are final
_GONE_POLL_S, _GONE_LIMIT_S = 0.05, 2.0  # pause and limit of the probes after a stop

_log = logging.getLogger(__name__)


class ExternalProcess(NodeProcess):
    """One run of an external server.

    Args:
        is_passive: No command was started, so failed probes become final.

    Attributes:
        stopping: Set by ``terminate``, and at the end of the run.
    """

    def __init__(self, *, is_passive: bool) -> None:
        self._is_passive = is_passive
        self._failures, self._failed_at = 0, -_PERIOD_S
        self._url: str | None = None  # of the first probe that succeeded
        self._exit: Exit | None = None
        self._ended = anyio.Event()
        self.stopping = anyio.Event()

    @property
    def pid(self) -> int:
        """0, since the process is not known."""
        return 0

    async def wait(self) -> Exit:
        """Wait until the run has ended."""
        await self._ended.wait()
        assert self._exit is not None, "set before the event"
        return self._exit

    def pids(self) -> tuple[int, ...]:
        """Return none, since the tree is not known."""
        return ()

    def terminate(self) -> None:
        """End the run once the server no longer responds; sends no signal."""
        self.stopping.set()

    def kill(self) -> None:
        """End the run at once; sends no signal."""
        self.end(Exit(code=0))

    def end(self, ended: Exit) -> None:
        """End the run; a no-op if it has ended."""
        if self._exit is None:
            self._exit = ended
            self._ended.set()
            self.stopping.set()  # ends `await_end`

    async def sweep(self, grace_s: float) -> int:
        """Return 0, since there is no tree."""
        return 0

    async def probe(self, url: str, *, timeout_s: float) -> Probe:
        """GET *url* once; it succeeds by status 200, whichever process responds."""
        response = await http_probe.get(url, timeout_s=timeout_s)
        if response.status == 200:
            self._url = url
            return Probe(is_ok=True)
        now = anyio.current_time()
        if now - self._failed_at >= _PERIOD_S:
            self._failures, self._failed_at = self._failures + 1, now
        is_final = self._is_passive and self._url is None and self._failures >= _FAILURES
        detail = response.detail
        if is_final:
            detail += f"; no healthy server at {url}, and there is no `cmd` that starts one"
        return Probe(is_ok=False, detail=detail, is_final=is_final)

    def command_ended(self, ended: Exit) -> None:
        """End the run if the command failed before the server was ever healthy."""
        if not ended.is_clean and self._url is None:
            self.end(ended)

    async def await_end(self) -> None:
        """Wait for `stopping` and the end of the server; a task of the launcher."""
        await self.stopping.wait()
        while self._url is not None and self._exit is None:
            response = await http_probe.get(self._url, timeout_s=_GONE_LIMIT_S)
            if response.status is None:
                break
            await anyio.sleep(_GONE_POLL_S)
        self.end(Exit(code=0))


class ExternalLauncher(NodeLauncher):
    """Launcher that also starts external servers: ``async with ExternalLauncher(launcher)``.

    Args:
        local: Launcher of all other commands; it is entered before this one.
    """

    def __init__(self, local: LocalLauncher) -> None:
        self._local = local
        self._tasks: TaskGroup | None = None
        self._running: dict[str, subprocess.Popen[bytes]] = {}  # label -> command that still runs

    async def __aenter__(self) -> Self:
        """Start the tasks."""
        self._tasks = await anyio.create_task_group().__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the tasks; commands that still run are left alone and logged."""
        tasks, self._tasks = self._tasks, None
        assert tasks is not None
        tasks.cancel_scope.cancel()
        await tasks.__aexit__(None, None, None)
        for label, popen in self._running.items():
            _log.warning(
                "%s: its command (pid %d) is left running, since `external` is set",
                label, popen.pid,
            )  # fmt: skip
            popen.returncode = 0  # unknown; `Popen` would warn about a child that was not reaped
        self._running.clear()

    async def start(self, command: Command, log: LogSink) -> ProcessHandle:
        """Start *command*; see `Launcher`."""
        if not command.is_external:
            return await self._local.start(command, log)
        if self._tasks is None:
            raise EngineError("the launcher is closed")
        process = ExternalProcess(is_passive=not command.argv)
        if command.argv and command.label not in self._running:
            self._spawn(command, log, process, self._tasks)
        elif command.argv:
            log.write(b"[swapchart] the command of an earlier start still runs\n")
        self._tasks.start_soon(fenced, process.await_end)
        return process

    async def nodes(self) -> tuple[Node]:
        """Return this machine."""
        return await self._local.nodes()

    async def adopt(self) -> Sequence[Adopted]:
        """Return the local processes that an earlier proxy has left; see `NodeLauncher`."""
        return await self._local.adopt()

    async def run(self, command: Command, log: LogSink) -> Exit:
        """Run *command* until it exits; see `Launcher`."""
        return await self._local.run(command, log)

    def _spawn(
        self, command: Command, log: LogSink, process: ExternalProcess, tasks: TaskGroup
    ) -> None:
        inherited = {n: v for n, v in os.environ.items() if n not in self._local.drop_env}
        # The launcher kills strays, adopted processes without a tag or SWAPCHART_RUN; these have
        # those of no tree, and no SWAPCHART_INSTANCE.
        run_id = secrets.token_hex(8)
        environment = {**inherited, **command.env, "SWAPCHART_RUN": run_id}
        environment.pop("SWAPCHART_INSTANCE", None)
        with tag.applied(tag.make(run_id, run_id)):
            popen, _, output = spawn(command, environment)
        pump = OutputPump(output, log)
        self._running[command.label] = popen
        tasks.start_soon(pump.run)
        tasks.start_soon(fenced, self._watch, command.label, popen, pump, process)

    async def _watch(
        self, label: str, popen: subprocess.Popen[bytes], pump: OutputPump, process: ExternalProcess
    ) -> None:
        try:
            await kept(lambda: pidfd.wait_child(popen.pid))
            pump.read_nowait()
            del self._running[label]
            code = popen.wait()
            is_signal = code < 0
            process.command_ended(
                Exit(code=None if is_signal else code, signal=-code if is_signal else None)
            )
            await pump.closed.wait()  # the server may hold the pipe
        finally:
            pump.stop()  # its own scope is shielded
