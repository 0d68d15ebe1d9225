"""Finished requests, as the proxy reports them, and the ends of their responses."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from ..effectiveness import cache_usage
from .assignment import Assignment, Outcome

CLIENT_CLOSED_REQUEST = 499
_END_BYTES = 4096
_FIRST_PIECES = 4


class FinishedRequest(Protocol):
    """A finished request to a model; the proxy's ``RequestRecord``."""

    @property
    def model(self) -> str:
        """Id of the model."""
        ...

    @property
    def status(self) -> int:
        """Status of the response; 499 if the client disconnected before its end."""
        ...

    @property
    def body_chunks(self) -> Iterable[bytes]:
        """Chunks of the response body: all, or the last ones."""
        ...

    @property
    def first_chunk(self) -> bytes:
        """First chunk of the body, if ``body_chunks`` are not all."""
        ...


def ends_of(exchange: FinishedRequest) -> bytes:
    """Return the ends of a response: Anthropic's streams report the cache at the beginning."""
    pieces, tail = tuple(exchange.body_chunks), b""
    for piece in reversed(pieces):
        tail = piece + tail
        if len(tail) >= _END_BYTES:
            break
    head = b"".join(pieces[:_FIRST_PIECES]) if not exchange.first_chunk else exchange.first_chunk
    return head[:_END_BYTES] + b"\n" + tail[-_END_BYTES:]


class AssignedRequest:
    """A request and its slot, as the proxy sees them.

    Args:
        assignment: Its assignment.

    Attributes:
        body: Body to forward.
    """

    def __init__(self, assignment: Assignment) -> None:
        self._assignment, self.body = assignment, assignment.body

    def finish(self, request: FinishedRequest) -> tuple[str, float]:
        """Note the end of the request.

        Returns:
            Origin of the reused tokens: ``slot``, ``library``, ``server`` or "", and the time that
            saves and restores took before it was forwarded; milliseconds.
        """
        has_body = any(request.body_chunks)
        outcome: Outcome = "unknown"
        if request.status == 200 and has_body:
            outcome = "complete"
        elif has_body and request.status == CLIENT_CLOSED_REQUEST:
            outcome = "partial"
        elif has_body:
            outcome = "rejected"
        seen = cache_usage(ends_of(request)) if outcome in ("complete", "partial") else None
        self._assignment.finish(outcome, seen)
        return self._assignment.source, self._assignment.restore_ms
