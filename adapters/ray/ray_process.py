"""Process on a node, as the proxy sees it."""

from __future__ import annotations

import base64
from collections.abc import Awaitable, Callable
from typing import Any, Protocol, TypeAlias

import anyio

from ...runtime.ports import (
    Ending,
    Endpoint,
    Exit,
    ExitReason,
    LogSink,
    NodeProcess,
    Presence,
    Probe,
)
from .messages import Message

CONFIRM_S = 10.0  # for a node to confirm the end of a process that was killed
PRESENCE_S = 3.0
_KEPT_BYTES = 1 << 20  # output of a process that has no log yet

#: (URL, time limit in seconds) -> status or None, and what is wrong, in words.
HttpGet: TypeAlias = Callable[[str, float], Awaitable[tuple[int | None, str]]]


class Host(Protocol):
    """Launcher of a process, as far as the process uses it."""

    http_get: HttpGet

    def order(self, process: RayProcess, line: str) -> None:
        """Give the guard of *process* an order; never waits."""
        ...

    def remember(self, process: RayProcess, memo: str, ending: Ending) -> None:
        """Keep *memo* with *process* for the next proxy, unless it is empty; never waits."""
        ...

    async def dismiss(self, process: RayProcess) -> bool:
        """End *process* in the way that was asked for; return False if it was only killed."""
        ...

    def confirm(self, process: RayProcess, within_s: float) -> None:
        """Count *process* as lost if its end is not confirmed in time; never waits."""
        ...

    def discard(self, process: RayProcess) -> None:
        """Forget *process*, whose tree has ended; never waits."""
        ...

    async def presence_of(self, process: RayProcess) -> Presence:
        """Return whether *process* exists."""
        ...


class BufferSink:
    """Sink that keeps the last MiB until there is a log."""

    def __init__(self) -> None:
        self.data = b""

    def write(self, data: bytes) -> None:
        """Append *data*."""
        self.data = (self.data + data)[-_KEPT_BYTES:]


class RayProcess(NodeProcess):
    """One run of a service on a node.

    Args:
        id_: Id of the run, unique for all time.
        host: Its launcher.
        log: Receives its output; None keeps the last MiB until `attach`.
        node: Name of the node.
        node_id: Id that Ray gave the node.

    Attributes:
        facts: What the agent says about it.
        exit: How it ended; None while it runs.
        is_detached: It goes on when the launcher is closed.
    """

    def __init__(
        self, id_: str, host: Host, log: LogSink | None, *, node: str, node_id: str
    ) -> None:
        self.id, self._host = id_, host
        self._log: LogSink = BufferSink() if log is None else log
        self.node_name, self.node_id = node, node_id
        self.facts: dict[str, Any] = {}
        self.exit: Exit | None = None
        self.is_detached = False
        self._endpoint: Endpoint | None = None
        self._offset = 0
        self._killed = 0
        self._exited, self.gone = anyio.Event(), anyio.Event()

    @property
    def pid(self) -> int:
        """Process id of the leader on its node."""
        return int(self.facts.get("pid", 0))

    @property
    def endpoint(self) -> Endpoint | None:
        """Where it is reached."""
        return self._endpoint

    @property
    def node(self) -> str:
        """Name of its node."""
        return self.node_name

    @property
    def devices(self) -> tuple[str, ...]:
        """Pools of its GPUs on its node."""
        return tuple(f"GPU{number}" for number in self.gpus)

    @property
    def gpus(self) -> list[int]:
        """Numbers of its GPUs on its node."""
        return list(self.facts.get("gpus", ()))

    def pids(self) -> tuple[int, ...]:
        """Return none, since ids of another machine mean nothing here."""
        return ()

    def take(self, report: Message) -> None:
        """Take what the agent reports: facts, output, the end of the leader or of the tree."""
        log = base64.b64decode(report.pop("log", ""))
        offset = report.pop("offset", 0)
        self.facts.update(report)
        if self.facts.get("port") and self._endpoint is None:
            self._endpoint = Endpoint(self.facts["address"], self.facts["port"], self.node_name)
        fresh = min(offset - self._offset, len(log))
        if fresh > 0:
            self._offset = offset
            self._log.write(log[-fresh:])
        code = report.get("code")
        if code is not None:
            self._end(Exit(code=code) if code >= 0 else Exit(signal=-code))
        if report.get("killed") is not None:
            if code is None:  # its guard was killed, and the kernel then killed it
                self._end(Exit(signal=9, reason="agent-lost"))
            self._killed = report["killed"]
            self.gone.set()

    def lose(self, reason: ExitReason, *, is_certain: bool = False) -> None:
        """Count it as lost; a no-op if its end was seen.

        Args:
            reason: What was lost.
            is_certain: It has ended for certain, unseen.
        """
        self._end(Exit(reason=reason, certain=is_certain))
        self.gone.set()

    def _end(self, ended: Exit) -> None:
        if self.exit is None:
            self.exit = ended
            self._exited.set()

    async def wait(self) -> Exit:
        """Wait until its leader was reaped, or was lost."""
        await self._exited.wait()
        assert self.exit is not None, "set before the event"
        return self.exit

    def terminate(self) -> None:
        """Send SIGTERM and SIGCONT to its group."""
        self._host.order(self, "term")

    def kill(self) -> None:
        """Send SIGKILL to its tree; it counts as lost if that is not confirmed in 10 s."""
        if not self.gone.is_set():
            self._host.order(self, "kill")
            self._host.confirm(self, CONFIRM_S)

    async def sweep(self, grace_s: float) -> int:
        """Wait for the end of its tree, which is killed after *grace_s* seconds."""
        if not self.gone.is_set():
            self._host.order(self, f"sweep {grace_s}")
            self._host.confirm(self, grace_s + CONFIRM_S)
            await self.gone.wait()
        self._host.discard(self)
        return self._killed

    async def probe(self, url: str, *, timeout_s: float) -> Probe:
        """GET *url* once; it succeeds by status 200."""
        status, detail = await self._host.http_get(url, timeout_s)
        return Probe(is_ok=status == 200, detail="" if status == 200 else detail)

    async def presence(self) -> Presence:
        """Return whether it exists, as its agent says within a few seconds."""
        return "gone" if self.exit is not None else await self._host.presence_of(self)

    def attach(self, log: LogSink) -> None:
        """Write the output that is kept, and all later output, to *log*."""
        if isinstance(self._log, BufferSink):
            log.write(self._log.data)
        self._log = log

    @property
    def is_remembered(self) -> bool:
        """True if it may outlive the proxy."""
        return bool(self.facts.get("memo"))

    def remember(self, facts: str, ending: Ending) -> None:
        """Keep *facts* with the process on its node, whose agent can carry out *ending*."""
        self.facts["memo"] = facts
        self._host.remember(self, facts, ending)

    async def dismiss(self) -> bool:
        """End the process with the ending that an earlier proxy gave it."""
        has_run = await self._host.dismiss(self)
        if not has_run:
            self.kill()
        await self.wait()
        await self.sweep(0.0)
        return has_run

    def detach(self) -> None:
        """Let go of it; it goes on for its lease."""
        self.is_detached = True
