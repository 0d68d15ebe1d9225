"""Ports: protocols by which the runtime starts processes, runs commands, probes and calls HTTP.

Adapters implement them; the runtime has no access to sockets, signals or files.

Two rules hold for every port. *To end what has already ended is a no-op*: the chart cannot know
that a process died a moment ago. *Every coroutine may be cancelled* and then ends what it has
started, except ``Launcher.start``, which the runtime shields.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from .arguments import (
    require_count,
    require_flag,
    require_kind,
    require_name,
    require_text,
    require_texts_by_name,
    require_url,
    texts,
)
from .errors import ConfigError


class LogSink(Protocol):
    """Receives the output of a process: bytes in chunks of any size."""

    def write(self, data: bytes) -> None:
        """Append *data*; never blocks, never raises, and keeps a limited amount."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A command to run, without a shell.

    Attributes:
        argv: Program, looked up in PATH, and arguments; at least one item, unless `is_external`.
        env: Environment variables, added to those of the proxy.
        cwd: Working directory; None means that of the proxy.
        label: Name of the service that it belongs to; marks the process tree.
        listens_at: URL at which it will serve; no other process may listen there at its start.
            None skips that check. Not part of equality.
        is_external: The server runs outside of the tree of the command and is never signaled. Only
            `adapters.process.ExternalLauncher` supports it.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: str | None = None
    label: str = ""
    listens_at: str | None = field(default=None, compare=False)
    is_external: bool = False

    def __post_init__(self) -> None:
        """Check the fields; a list of arguments becomes a tuple.

        Raises:
            ConfigError: A field has a wrong type, or there is no program.
        """
        require_flag("command.is_external", self.is_external)
        argv = texts("command.argv", self.argv, least=0 if self.is_external else 1)
        object.__setattr__(self, "argv", argv)
        require_texts_by_name("command.env", self.env)
        require_text("command.cwd", self.cwd, or_none=True)
        require_text("command.label", self.label)
        require_url("command.listens_at", self.listens_at, or_none=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Exit:
    """How a process ended.

    Attributes:
        code: Exit code, 0 to 255; None if a signal ended it.
        signal: Number of the signal that ended it, or None.
        certain: False if its node was lost and the process may still hold its resources.
        out_of_memory: The kernel's out-of-memory killer killed this or another process meanwhile.
    """

    code: int | None = None
    signal: int | None = None
    certain: bool = True
    out_of_memory: bool = False

    def __post_init__(self) -> None:
        """Check the fields.

        Raises:
            ConfigError: A field has a wrong type.
        """
        for name in ("code", "signal"):
            require_count(f"exit.{name}", getattr(self, name), or_none=True)
        require_flag("exit.certain", self.certain)
        require_flag("exit.out_of_memory", self.out_of_memory)

    @property
    def is_clean(self) -> bool:
        """True if it ended with exit code 0."""
        return self.code == 0

    def __str__(self) -> str:
        """Return the words for logs and error texts."""
        if self.signal is not None:
            why = " by the kernel, out of memory" if self.out_of_memory else ""
            return f"killed by signal {self.signal}{why}"
        why = "; the kernel killed a process, out of memory" if self.out_of_memory else ""
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


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolReading:
    """One look at a memory pool of the machine.

    Attributes:
        name: Name of the pool: ``RAM``, or ``GPU0`` and so on in the order of the driver.
        capacity: Size in bytes; 0 means that the driver does not say it.
        used: Bytes in use by all programs; None means unknown.
        processes: Process id -> bytes that it holds; None if the driver cannot tell them apart.
        source: Where it was read, such as ``nvml`` or ``meminfo``.
        device: Stable id of the device, such as a UUID; empty for RAM.
        others: Name of another program -> bytes that it holds, the largest ones first.
        vendor: ``nvidia``, ``amd`` or ``intel`` for a GPU, else empty.
        part_of: Pool that this memory belongs to, where a GPU uses main memory; else empty.
        is_prompt: Memory is free as soon as its process has ended, and what other programs use
            changes so often that its sum says nothing about one process; true of RAM.
        files: Process id -> bytes of mapped files among what it holds, in proportion to those that
            map them; `used` does not contain them.
        whole_files: Process id -> bytes of mapped files, whatever others map them.
    """

    name: str
    capacity: int
    used: int | None = None
    processes: Mapping[int, int] | None = None
    source: str = ""
    device: str = ""
    others: Mapping[str, int] = field(default_factory=dict)
    vendor: str = ""
    part_of: str = ""
    is_prompt: bool = False
    files: Mapping[int, int] = field(default_factory=dict)
    whole_files: Mapping[int, int] = field(default_factory=dict)


class MemoryMeter(Protocol):
    """Reads the memory pools of the machine."""

    async def read(self, pids: Collection[int]) -> Sequence[PoolReading]:
        """Return a reading of each pool; it may be canceled and never blocks the event loop.

        Args:
            pids: Processes of services, whose own amounts are wanted.

        Raises:
            OSError: The machine or its driver did not respond.
        """
        ...


class Launcher(Protocol):
    """Starts processes and runs commands."""

    async def start(self, command: Command, log: LogSink) -> ProcessHandle:
        """Start *command* as leader of its own process group and write its output to *log*.

        Raises:
            SpecError: The command is wrong (ENOENT, EACCES, ENOEXEC, NUL).
            EngineError: Resources are short (EMFILE, EAGAIN, ENOMEM).
            PortInUseError: Another process listens at ``command.listens_at``.
        """
        ...

    async def run(self, command: Command, log: LogSink) -> Exit:
        """Run a short command (a hook, cmdStop) in its own process group until it ends.

        When the leader has ended, the rest of its group is killed. A cancellation kills the whole
        group before it returns. Raises the errors of `start`.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpCall:
    """One HTTP request of a hook.

    Attributes:
        method: HTTP method, such as ``POST``.
        url: Absolute ``http`` or ``https`` URL, from the configuration only.
        headers: Headers of the request, sent unchanged.
        body: Request body, or None.
        expect: Status codes that count as success; empty means any 2xx.
    """

    method: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    expect: frozenset[int] = frozenset()

    def __post_init__(self) -> None:
        """Check the fields; the URL must be absolute.

        Raises:
            ConfigError: A field has a wrong type or value.
        """
        require_name("call.method", self.method)
        require_url("call.url", self.url)
        require_texts_by_name("call.headers", self.headers)
        if not isinstance(self.body, (bytes, type(None))):
            found = type(self.body).__name__
            raise ConfigError("call.body", f"expected bytes or None, got a {found}")
        require_kind("call.expect", self.expect, (frozenset, set, list, tuple), "a set of statuses")
        for status in self.expect:
            require_count("an item of call.expect", status, 100)


class HttpClient(Protocol):
    """Makes the HTTP calls of hooks, without redirects, cookies or proxies of the environment."""

    async def call(self, call: HttpCall, *, timeout_s: float) -> tuple[int, bytes]:
        """Make *call* and return the status and at most 64 KiB of the body.

        Raises:
            OSError: The server was not reached, or did not respond in time.
        """
        ...
