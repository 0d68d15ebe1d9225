"""Errors of the running side, grouped by who must act."""

from __future__ import annotations

from ..machine.errors import ConfigError, SwapchartError

__all__ = [
    "ConfigError",
    "EngineError",
    "LaunchError",
    "PortInUseError",
    "RequestError",
    "SpecError",
    "SwapchartError",
]


class LaunchError(SwapchartError):
    """A launcher could not start a process; the operator must act.

    Attributes:
        permanent: Trying again cannot help before the declaration or the machine changes.
    """

    permanent = False


class SpecError(LaunchError):
    """The command itself is wrong (not found, not executable, too long): never retried."""

    permanent = True


class EngineError(LaunchError):
    """The machine refused for now (no memory, no file descriptor): worth another try."""


class PortInUseError(EngineError):
    """Somebody else listens where the process would; worth another try, since that may end.

    Attributes:
        port: Which port.
        pid: Who holds it.
        program: File name of what *pid* runs.
    """

    def __init__(self, port: int, pid: int, program: str, *, who: str = "") -> None:
        text = f"port {port} is taken: pid {pid} ({program}){who} listens there"
        super().__init__(text)
        self.port, self.pid, self.program = port, pid, program


class RequestError(SwapchartError):
    """A request for a service was not admitted; the client gets to know why.

    Attributes:
        code: Short machine-readable reason, such as ``start_failed`` or ``shutting_down``.
        status_hint: The HTTP status that fits; 4xx or 5xx.
        retry_after_s: When another try makes sense; seconds, or None when nobody knows.
        log_tail: Last lines of the service's own log, where they explain it; else empty.
    """

    def __init__(
        self, code: str, message: str, *, status_hint: int = 503,
        retry_after_s: float | None = None, log_tail: tuple[str, ...] = (),
    ) -> None:  # fmt: skip
        super().__init__(message)
        self.code, self.status_hint, self.retry_after_s = code, status_hint, retry_after_s
        self.log_tail = log_tail
