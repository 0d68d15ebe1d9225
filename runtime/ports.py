"""What the runtime asks of the world: start processes, run commands, probe, call over HTTP.

Adapters implement these protocols; the runtime knows nothing of sockets, signals or files.

Two clauses hold for every port. *Cancelling what has already ended is a no-op*: the chart
cannot know that the child died a moment ago. *Every coroutine here may be cancelled* and has
then ended whatever it started, except ``Launcher.start``, which the runtime shields.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol


class LogSink(Protocol):
    """Where the output of a process goes: bytes as they came, in pieces of any size."""

    def write(self, data: bytes) -> None:
        """Take *data*; never blocks, never raises, keeps no more than its cap."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A command to run, without a shell.

    Attributes:
        argv: Program and arguments; at least one item. Looked up in PATH.
        env: Variables on top of the proxy's own environment; later wins.
        cwd: Working directory; None is the proxy's own.
        label: Name of the service it belongs to; marks the process tree.
        listens_at: URL where it will serve, and where nobody else may when it starts; None: not
            known, or not to be looked at. How it starts, not what it is: no part of equality.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: str | None = None
    label: str = ""
    listens_at: str | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Exit:
    """How a process ended.

    Attributes:
        code: Exit code 0..255, or None when a signal ended it.
        signal: Number of the signal that ended it, or None.
        certain: False when a node was lost and the process may still hold its resources.
        out_of_memory: Meanwhile the kernel killed a process, this or another, for want of memory.
    """

    code: int | None = None
    signal: int | None = None
    certain: bool = True
    out_of_memory: bool = False

    @property
    def is_clean(self) -> bool:
        """Tell whether it ended by itself with code 0."""
        return self.code == 0

    def __str__(self) -> str:
        """Say it in words, as logs and error texts show it."""
        if self.signal is not None:
            why = " by the kernel, for want of memory" if self.out_of_memory else ""
            return f"killed by signal {self.signal}{why}"
        why = "; the kernel killed a process for want of memory" if self.out_of_memory else ""
        return f"exit code {self.code}{why}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """What one readiness or liveness probe found.

    Attributes:
        is_ok: The expected status came, from a process of the service's own tree.
        detail: What was found instead, for logs: ``refused``, ``timeout``, ``status 503``,
            ``answered by pid 42, which is not ours``.
        is_final: Probing again cannot help: another program serves where the service should.
    """

    is_ok: bool
    detail: str = ""
    is_final: bool = False


class ProcessHandle(Protocol):
    """One incarnation of a service: the leader of its own process group, and its tree."""

    @property
    def pid(self) -> int:
        """Process id of the leader; also the id of its process group."""
        ...

    async def wait(self) -> Exit:
        """Wait until the leader has been reaped; may be called by several tasks, at any time.

        Never waits for pipes to close: a grandchild may hold them for ever.
        """
        ...

    def terminate(self) -> None:
        """Ask the whole group to end (SIGTERM, then SIGCONT so that a stopped one hears it)."""
        ...

    def kill(self) -> None:
        """End the whole tree (SIGKILL)."""
        ...

    async def sweep(self, grace_s: float) -> int:
        """After the leader's end: wait *grace_s* seconds for the rest of the tree, then kill it.

        Returns:
            How many processes had to be killed; 0 when the tree emptied by itself.
        """
        ...

    async def probe(self, url: str, *, timeout_s: float) -> Probe:
        """GET *url* once; is_ok is status 200 from a listener that belongs to this tree.

        Redirects are not followed, at most 64 KiB are read, and it ends within *timeout_s*.
        """
        ...


class Launcher(Protocol):
    """Starts processes, wherever they run."""

    async def start(self, command: Command, log: LogSink) -> ProcessHandle:
        """Start *command* as leader of its own process group, its output going to *log*.

        Raises:
            SpecError: The command cannot be started as it is (ENOENT, EACCES, ENOEXEC, NUL).
            EngineError: The machine refused (EMFILE, EAGAIN, ENOMEM).
            PortInUseError: Somebody else listens where it will serve.
        """
        ...

    async def run(self, command: Command, log: LogSink) -> Exit:
        """Run a short command (a hook, cmdStop) to its end, in its own group.

        Ends when the leader ends; what it left in its group is then killed. Cancelling kills
        the whole group before it returns. Raises as ``start``.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpCall:
    """One HTTP request of a hook.

    Attributes:
        method: Such as ``POST``.
        url: Absolute ``http`` or ``https`` URL; from the declaration only.
        headers: Sent as they are.
        body: Request body, or None.
        expect: Status codes that count as success; empty means any 2xx.
    """

    method: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    expect: frozenset[int] = frozenset()


class HttpClient(Protocol):
    """Makes the HTTP calls of hooks: no redirects, no cookies, no proxies of the environment."""

    async def call(self, call: HttpCall, *, timeout_s: float) -> tuple[int, bytes]:
        """Make *call*; returns the status and at most 64 KiB of the body.

        Raises:
            OSError: The other end could not be reached, or not in time.
        """
        ...
