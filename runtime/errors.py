"""Errors of the runtime: `LaunchError` is for the operator, `RequestError` for the client."""

from __future__ import annotations

import re

from ..machine.errors import ConfigError, SwapchartError

__all__ = [
    "ConfigError",
    "EngineError",
    "LaunchError",
    "LostError",
    "PlacementError",
    "PortInUseError",
    "RequestError",
    "SpecError",
    "StartError",
    "SwapchartError",
    "UnknownServiceError",
]


_TELLING = re.compile(r"error|fail|fatal|cannot|could not|no such|exception|denied", re.IGNORECASE)
_LINE_CHARS = 300


class LaunchError(SwapchartError):
    """A launcher could not start a process; the operator has to act.

    Attributes:
        permanent: A retry fails as long as the configuration and the machine stay the same.
    """

    permanent = False


class SpecError(LaunchError):
    """The command is wrong (not found, not executable, too long) and is not retried."""

    permanent = True


class EngineError(LaunchError):
    """The system has no resources now, or its engine does not respond; it is retried."""


class LostError(EngineError):
    """The node, the agent or the engine was lost during a start, whose fate is unknown."""


class PlacementError(LaunchError):
    """No node has room for the process; it is retried unless no node ever can have.

    Attributes:
        is_infeasible: No node can ever run it, even if nothing else does.
    """

    def __init__(self, text: str, *, is_infeasible: bool = False) -> None:
        super().__init__(text)
        self.is_infeasible = self.permanent = is_infeasible


class PortInUseError(EngineError):
    """Another process listens on the port of the service; the start is retried.

    Attributes:
        port: Number of the port.
        pid: Process id of the listening process.
        program: File name of the program that *pid* runs.
    """

    def __init__(self, port: int, pid: int, program: str, *, who: str = "") -> None:
        text = (
            f"port {port} is taken: pid {pid} ({program}){who} listens there; end it, or set "
            "`external: true` if it is the server of this model"
        )
        super().__init__(text)
        self.port, self.pid, self.program = port, pid, program


class RequestError(SwapchartError):
    """A request for a service was rejected; the text is for the client.

    Attributes:
        code: Short machine-readable reason, such as ``start_failed`` or ``shutting_down``.
        status_hint: Suitable HTTP status, 4xx or 5xx.
        retry_after_s: Time in seconds until a retry makes sense; None means unknown.
        log_tail: Last lines of the service's log if they explain the error; else empty.
        telling_line: Line of that log that tells the reason; empty takes a likely one.
        can_retry: The same request may succeed soon without a change to anything else.
    """

    def __init__(
        self, code: str, message: str, *, status_hint: int = 503,
        retry_after_s: float | None = None, log_tail: tuple[str, ...] = (),
        telling_line: str = "", can_retry: bool = True,
    ) -> None:  # fmt: skip
        super().__init__(message)
        self.code, self.status_hint, self.retry_after_s = code, status_hint, retry_after_s
        self.log_tail, self.telling_line, self.can_retry = log_tail, telling_line, can_retry

    def reason_line(self) -> str:
        """Return *telling_line*, else the last line of *log_tail* that reports an error, or is."""
        if self.telling_line:
            return self.telling_line[:_LINE_CHARS]
        lines = [line.strip() for line in self.log_tail if line.strip()]
        telling = [line for line in lines if _TELLING.search(line)]
        return (telling or lines or [""])[-1][:_LINE_CHARS]


class StartError(RequestError):
    """The service that a request waited for did not start; another start is likely to fail too."""

    def again(self) -> RequestError:
        """Return the error for the same request when nothing was started for it."""
        return RequestError(
            self.code, str(self), status_hint=self.status_hint, log_tail=self.log_tail,
            telling_line=self.telling_line, can_retry=False,
        )  # fmt: skip


class UnknownServiceError(RequestError, KeyError):
    """A request names a service that the supervisor does not have.

    It is a `KeyError` too. Its code is ``unknown_service`` and its status 404.

    Attributes:
        service: The name.
    """

    def __init__(self, service: str) -> None:
        text = f"there is no service {service!r}"
        super().__init__("unknown_service", text, status_hint=404)
        self.service = service

    def __str__(self) -> str:
        """Return the message; that of a plain `KeyError` would be in quotes."""
        return str(self.args[0])
