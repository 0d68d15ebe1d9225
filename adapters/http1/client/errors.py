"""Errors of exchanges with an upstream, with the HTTP status that the client gets."""

from __future__ import annotations

from typing import Literal

from ....machine.errors import SwapchartError

Stage = Literal["connect", "send", "head", "body"]
"""Stage of an exchange: connecting, sending, waiting for the headers, reading the body."""


class UpstreamError(SwapchartError):
    """The upstream could not be reached, or sent no valid response.

    Attributes:
        stage: Stage at which the exchange failed.
        status_hint: HTTP status for the client if no response was started yet.
    """

    status_hint = 502

    def __init__(self, stage: Stage, message: str) -> None:
        super().__init__(message)
        self.stage: Stage = stage


class UpstreamUnreachable(UpstreamError):  # noqa: N818 - reads better where it is caught
    """No connection was made: refused, no route, TLS failed, or the pool is closed."""


class UpstreamTimeout(UpstreamError):  # noqa: N818 - reads better where it is caught
    """Connecting, or the next part of the response, took longer than allowed."""

    status_hint = 504


class UpstreamBroken(UpstreamError):  # noqa: N818 - reads better where it is caught
    """The connection was closed too early, or the upstream sent no valid HTTP/1.1 response.

    Attributes:
        bytes_received: Bytes of the response body that had arrived.
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
