"""Statuses and texts of failed requests; only administrators get the output of a model."""

from __future__ import annotations

from math import ceil
from typing import Any

from ....runtime import RequestError
from ...http1.asgi_types import Headers, Send
from ...http1.client.errors import UpstreamError
from ..accounting.request_record import RequestRecord, recording_headers
from ..body.errors import BodyTooLargeError
from ..options import Access
from ..responses import send_error

# The AI SDK and opencode ignore `x-should-retry`, and repeat a request two and five times after
# 2, 4, 8, 16 and 32 s unless this says otherwise. With it they have the error in 0.5 s and 1.3 s.
_NO_RETRY: Headers = [(b"x-should-retry", b"false"), (b"retry-after-ms", b"250")]


def status_of(error: Exception) -> int:
    """Return the HTTP status for *error*, which a request or its upstream caused."""
    if isinstance(error, UpstreamError):
        return error.status_hint
    return 413 if isinstance(error, BodyTooLargeError) else 400


async def send_recorded_error(
    record: RequestRecord, send: Send, status: int, message: str, **more: Any
) -> None:
    """Send an error, see `send_error`, and record the headers of the response."""
    send_and_record = recording_headers(record, send)
    await send_error(record.request, send_and_record, status, message, **more)


def error_text(error: Exception, access: Access) -> str:
    """Return the message of *error* for a client with *access*."""
    if isinstance(error, RequestError) and _shows_output(error, access):
        return f"{error}; its output: {error.reason_line()}"
    return str(error)


def rejection_fields(error: RequestError, access: Access) -> dict[str, Any]:
    """Return what `send_error` needs to know of *error* beside its status and text.

    The clients of OpenAI and Anthropic try again unless a header forbids it, and wait as long as
    Retry-After says, up to two minutes. Others try again whatever it says: they do so at once, and
    get the same error.
    """
    details, retry_after_s = error_details(error, access), error.retry_after_s
    if error.can_retry:
        return {"code": error.code, "retry_after_s": retry_after_s, "details": details}
    return {"code": error.code, "headers": _NO_RETRY, "details": details}


def error_details(error: RequestError, access: Access) -> dict[str, Any]:
    """Return further fields of the error object for a client with *access*."""
    details: dict[str, Any] = {"log": list(error.log_tail)} if _shows_output(error, access) else {}
    if error.retry_after_s is not None and not error.can_retry:
        details["retry_after_s"] = ceil(error.retry_after_s)
    return details


def _shows_output(error: RequestError, access: Access) -> bool:
    return bool(error.log_tail) and "admin" in access.scopes
