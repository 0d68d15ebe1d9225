"""Retry policy for requests to an upstream: a pure decision, made here and nowhere else.

An upstream may close an idle connection at the moment at which the next request is written to it.
Such a request goes over another connection, as in Go's net/http Transport:

- only if the connection carried an earlier request. A new connection that fails shows that the
  upstream is broken;
- at any time if not one byte of the request was sent;
- otherwise once, if no byte of a response arrived, the method is idempotent, and the body is
  still in memory;
- never if the proxy itself closed the connection, since the model is being stopped, and never after
  the first byte of a response.

The caller stops asking when its client disconnects: the request is cancelled then.

Source: RFC 9110 section 9.2.2 (idempotent methods), RFC 9112 section 9.3.1 (retrying requests).
"""

from __future__ import annotations

from collections.abc import AsyncIterator

from .errors import UpstreamBroken

IDEMPOTENT_METHODS = frozenset({b"GET", b"HEAD", b"PUT", b"DELETE", b"OPTIONS", b"TRACE"})


def is_repeatable(method: bytes, body: bytes | AsyncIterator[bytes] | None) -> bool:
    """Return True if sending the same request twice is harmless, and possible.

    Args:
        method: Such as b"POST".
        body: The whole body, an iterator over its chunks, which can be read only once, or None.
    """
    return method in IDEMPOTENT_METHODS and (body is None or isinstance(body, bytes))


def may_send_again(
    error: UpstreamBroken, *, is_reused: bool, is_repeatable: bool, retries: int
) -> bool:
    """Return True if the request that failed with *error* may be sent over another connection.

    Args:
        error: The failure, with how far the request had come.
        is_reused: The connection had carried an earlier request.
        is_repeatable: See the function of that name.
        retries: How often the request was sent again before, >= 0.
    """
    if error.is_local or not is_reused:
        return False
    return error.is_unsent or (error.is_unanswered and is_repeatable and retries == 0)
