"""Processes: their output, their end, and the handle of one that runs."""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal, Protocol, TypeAlias, get_args

from ...dataclass import dataclass
from ..arguments import require_count, require_flag, require_one_of, require_text
from ..errors import SpecError
from .command import Command
from .ending import Ending
from .nodes import Endpoint, Presence

#: Reason of an end; empty means that the process ended, by itself or by a signal.
ExitReason: TypeAlias = Literal[
    "", "evicted", "preempted", "node-lost", "agent-lost", "engine-lost"
]


class LogSink(Protocol):
    """Receives the output of a process: bytes in chunks of any size."""

    def write(self, data: bytes) -> None:
        """Append *data*; never blocks, never raises, and keeps a limited amount."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Exit:
    """How a process ended.

    Attributes:
        code: Exit code, 0 to 255; None if a signal ended it, or if it is not known.
        signal: Number of the signal that ended it, or None.
        certain: False if its node was lost and the process may still hold its resources.
        out_of_memory: The kernel's out-of-memory killer killed this or another process meanwhile.
        reason: ``node-lost``, ``agent-lost`` or ``engine-lost`` if the launcher lost sight of it,
            ``evicted`` or ``preempted`` if the engine ended it; else empty.
    """

    code: int | None = None
    signal: int | None = None
    certain: bool = True
    out_of_memory: bool = False
    reason: ExitReason = ""

    def __post_init__(self) -> None:
        """Check the fields.

        Raises:
            ConfigError: A field has a wrong type.
        """
        for name in ("code", "signal"):
            require_count(f"exit.{name}", getattr(self, name), or_none=True)
        require_flag("exit.certain", self.certain)
        require_flag("exit.out_of_memory", self.out_of_memory)
        require_one_of("exit.reason", self.reason, get_args(ExitReason))

    @property
    def is_lost(self) -> bool:
        """True if the launcher lost sight of it, so that its own end was not seen."""
        return self.reason.endswith("-lost")

    @property
    def is_clean(self) -> bool:
        """True if it ended with exit code 0."""
        return self.code == 0

    def __str__(self) -> str:
        """Return the words for logs and error texts."""
        if self.is_lost:
            rest = "" if self.certain else "; the process may still run"
            return f"its {self.reason.removesuffix('-lost')} was lost{rest}"
        if self.reason:
            return f"{self.reason} by the engine"
        if self.signal is not None:
            why = " by the kernel, out of memory" if self.out_of_memory else ""
            return f"killed by signal {self.signal}{why}"
        why = "; the kernel killed a process, out of memory" if self.out_of_memory else ""
        if self.code is None:
            return f"exit code unknown: another process reaped it{why}"
        return f"exit code {self.code}{why}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """Result of one readiness or liveness probe.

    Attributes:
        is_ok: A process of the service's own tree returned the expected status.
        detail: Reason of a failure, for logs: ``refused``, ``timeout``, ``status 503``.
        is_final: Further probes cannot succeed: another program listens on the port.
    """

    is_ok: bool
    detail: str = ""
    is_final: bool = False

    def __post_init__(self) -> None:
        """Check the fields.

        Raises:
            ConfigError: A field has a wrong type.
        """
        require_flag("probe.is_ok", self.is_ok)
        require_text("probe.detail", self.detail)
        require_flag("probe.is_final", self.is_final)


class ProcessHandle(Protocol):
    """One run of a service: the leader of a process group, and its process tree."""

    @property
    def pid(self) -> int:
        """Process id of the leader, and id of its process group; 0 for an external server."""
        ...

    async def wait(self) -> Exit:
        """Wait until the leader has been reaped; several tasks may wait, at any time.

        It does not wait for pipes to close, which a grandchild may hold open.
        """
        ...

    def pids(self) -> Collection[int]:
        """Return the process ids of the tree, in a snapshot; empty for an external server."""
        ...

    def terminate(self) -> None:
        """Send SIGTERM to the process group, then SIGCONT, so that stopped processes receive it."""
        ...

    def kill(self) -> None:
        """Send SIGKILL to the whole tree."""
        ...

    async def sweep(self, grace_s: float) -> int:
        """Wait *grace_s* seconds after the leader's end for the rest of the tree, then kill it.

        Returns:
            Number of processes that were killed; 0 if all ended by themselves.
        """
        ...

    async def probe(self, url: str, *, timeout_s: float) -> Probe:
        """GET *url* once; it succeeds by status 200 from a process of this tree.

        Redirects are not followed, at most 64 KiB are read, and it takes at most *timeout_s*
        seconds.
        """
        ...


class NodeProcess(ProcessHandle):
    """Process handle of a launcher that knows nodes: the base class, with defaults.

    The defaults are those of a process on the machine of the proxy, at the URL of its service.
    """

    @property
    def endpoint(self) -> Endpoint | None:
        """Where it is reached; None means at the URL of the specification."""
        return None

    @property
    def node(self) -> str:
        """Name of its node; empty means the machine of the proxy."""
        return "" if self.endpoint is None else self.endpoint.node

    @property
    def devices(self) -> tuple[str, ...]:
        """Pools of the GPUs that it was given, by their names on its node; empty if unknown."""
        return ()

    async def run(self, command: Command, log: LogSink) -> Exit:
        """Run a short command inside of what encloses the process, such as its container.

        Otherwise as `Launcher.run`, which runs it beside the process, on the same node.

        Raises:
            SpecError: Nothing encloses the process.
            LaunchError: As for `Launcher.start`.
        """
        raise SpecError("this process is in no container, so no command can run in it")

    async def presence(self) -> Presence:
        """Return whether the process exists; asked when a request could not reach it.

        It takes a few seconds at most and never raises. After ``unknown`` the process counts as
        unhealthy; ``gone`` means that `wait` returns soon.
        """
        return "alive"

    def attach(self, log: LogSink) -> None:
        """Write the output that is kept, and all later output, to *log*.

        Called once for a process that was adopted; one that was started has its log.
        """

    @property
    def is_remembered(self) -> bool:
        """True if the process may outlive the proxy: it was given facts, and will be adopted."""
        return False

    def remember(self, facts: str, ending: Ending) -> None:
        """Keep *facts* with the process, for `Adopted.facts`; never waits.

        It is called whenever the service has become ready or asleep, so that its process may be
        adopted; empty facts mean that it may not, and that it ends with the proxy.

        Args:
            facts: The facts.
            ending: How to end the process if no proxy adopts it within its lease.
        """

    async def dismiss(self) -> bool:
        """End a process that was adopted but not taken, with the ending that it was given.

        Returns:
            True if the ending was carried out; False if the process was only ended.
        """
        self.terminate()
        await self.wait()
        await self.sweep(0.0)
        return False

    def detach(self) -> None:
        """Let go of the process, which goes on for its lease; never waits."""
