"""Processes: their output, their end, and the handle of one that runs."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Protocol

from ..arguments import require_count, require_flag, require_text


class LogSink(Protocol):
    """Receives the output of a process: bytes in chunks of any size."""

    def write(self, data: bytes) -> None:
        """Append *data*; never blocks, never raises, and keeps a limited amount."""
        ...


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
