"""What can go wrong between us and an upstream, as the client gets to know it."""

from __future__ import annotations

from typing import Literal

from ....machine.errors import SwapchartError

Stage = Literal["connect", "send", "head", "body"]
"""How far an exchange had come: connecting, sending, waiting for the head, reading the body."""


class UpstreamError(SwapchartError):
    """The upstream could not be reached, or did not answer as HTTP asks for.

    Attributes:
        stage: How far the exchange had come.
        status_hint: The HTTP status for the client, while none has been sent yet.
    """

    status_hint = 502

    def __init__(self, stage: Stage, message: str) -> None:
        super().__init__(message)
        self.stage: Stage = stage


class UpstreamUnreachable(UpstreamError):  # noqa: N818 - reads better where it is caught
    """No connection came about: refused, no route, TLS failed, or the pool is closed."""


class UpstreamTimeout(UpstreamError):  # noqa: N818 - reads better where it is caught
    """Connecting, or the head of the answer, took longer than allowed."""

    status_hint = 504


class UpstreamBroken(UpstreamError):  # noqa: N818 - reads better where it is caught
    """The connection ended early, or what came over it is no HTTP/1.1 answer.

    Attributes:
        bytes_received: Bytes of the answer's body that had come until then.
        is_unsent: Not one byte of the request was sent.
        is_unanswered: Not one byte of a response arrived, interim responses included.
        is_local: The proxy closed the connection itself, for example to stop the model.
    """

    def __init__(
        self,
        stage: Stage,
        message: str,
        bytes_received: int = 0,
        *,
        is_unsent: bool = False,
        is_unanswered: bool = False,
        is_local: bool = False,
    ) -> None:
        super().__init__(stage, message)
        self.bytes_received = bytes_received
        self.is_unsent, self.is_unanswered, self.is_local = is_unsent, is_unanswered, is_local
