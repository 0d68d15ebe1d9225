"""Responses of the proxy itself: JSON, text, and errors in the shape that OpenAI clients expect.

In contrast to llama-swap, ``src`` is ``swapchart``, and a failure of an upstream has the same shape
as any other error.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from msgspec import to_builtins

from ..http1.asgi_types import Headers, Send
from .access.rights import missing_model
from .body.model_name import quoted_name
from .request import Request

JSON_TYPE = b"application/json"
_LARGE_BYTES = 1 << 18  # larger responses are sent in pieces, as fast as they are read
_PIECE_BYTES = 1 << 16
_LARGE_TOTAL_BYTES = 64 << 20  # of large responses that clients have not read yet
#: Statuses of refusals that an operator may have to act on.
LOGGED_REFUSALS = frozenset({401, 403, 421})
_TYPES = {
    401: ("authentication_error", "unauthorized"),
    403: ("authentication_error", "forbidden"),
    404: ("invalid_request_error", "not_found"),
    409: ("invalid_request_error", "conflict"),
    429: ("rate_limit_error", "rate_limit_exceeded"),
    499: ("invalid_request_error", "request_cancelled"),
    501: ("not_supported_error", "not_supported"),  # as llama-server says it
    502: ("server_error", "bad_gateway"),
    503: ("server_error", "service_unavailable"),
    504: ("server_error", "gateway_timeout"),
}
#: Types of Anthropic's API, which its clients tell errors apart by.
_ANTHROPIC_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}


async def send_bytes(
    send: Send,
    status: int,
    body: bytes,
    content_type: bytes,
    headers: Iterable[tuple[bytes, bytes]] = (),
) -> None:
    """Send a complete response."""
    all_headers: Headers = [
        (b"content-type", content_type),
        (b"content-length", str(len(body)).encode()),
        (b"x-content-type-options", b"nosniff"),
        *headers,
    ]
    if len(body) > _LARGE_BYTES:
        await _send_large(send, status, all_headers, body)
        return
    await send({"type": "http.response.start", "status": status, "headers": all_headers})
    await send({"type": "http.response.body", "body": body})


async def send_parts(send: Send, parts: Sequence[bytes], content_type: bytes) -> None:
    """Send a complete response without joining the parts of its body."""
    all_headers: Headers = [
        (b"content-type", content_type),
        (b"content-length", str(sum(map(len, parts))).encode()),
        (b"x-content-type-options", b"nosniff"),
    ]
    await send({"type": "http.response.start", "status": 200, "headers": all_headers})
    for part in parts:
        await send({"type": "http.response.body", "body": part, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


class _Outstanding:
    """Large responses that clients have not read yet, of all proxies in this process.

    Attributes:
        size: Their total size in bytes.
    """

    size = 0


async def _send_large(send: Send, status: int, all_headers: Headers, body: bytes) -> None:
    """Send *body* as fast as it is read; 503 if slow clients have too much left to read."""
    if _Outstanding.size and _Outstanding.size + len(body) > _LARGE_TOTAL_BYTES:
        value = error_value(503, "too many large responses are on their way to slow clients")
        await send_json(send, value, 503, [(b"retry-after", b"5")])
        return
    _Outstanding.size += len(body)
    try:
        await send({"type": "http.response.start", "status": status, "headers": all_headers})
        for start in range(0, len(body), _PIECE_BYTES):
            piece = body[start : start + _PIECE_BYTES]
            is_last = start + _PIECE_BYTES >= len(body)
            await send({"type": "http.response.body", "body": piece, "more_body": not is_last})
    finally:
        _Outstanding.size -= len(body)


async def send_json(
    send: Send, value: Any, status: int = 200, headers: Iterable[tuple[bytes, bytes]] = ()
) -> None:
    """Send *value*, which may be a struct or hold structs, as JSON."""
    # Not by msgspec's encoder: metadata of a configuration may hold integers of more than 64 bits.
    body = json.dumps(
        value, ensure_ascii=False, separators=(",", ":"), default=to_builtins
    ).encode()
    await send_bytes(send, status, body, JSON_TYPE, headers)


async def send_text(
    send: Send, text: str, status: int = 200, headers: Iterable[tuple[bytes, bytes]] = ()
) -> None:
    """Send *text* as plain text."""
    await send_bytes(send, status, text.encode(), b"text/plain; charset=utf-8", headers)


def error_value(
    status: int, message: str, *, code: str | None = None, details: Mapping[str, Any] | None = None,
    is_anthropic: bool = False, request_id: bytes = b"",
) -> dict[str, Any]:  # fmt: skip
    """Return the body of an error.

    Args:
        status: HTTP status, 4xx or 5xx.
        message: For a person.
        code: See `send_error`.
        details: See `send_error`.
        is_anthropic: The type is one of Anthropic's API, and its clients get what else they need.
        request_id: Id of the request, which only they look for in the body.
    """
    if status in _TYPES:
        kind, default = _TYPES[status]
    elif 400 <= status < 500:
        kind = "invalid_request_error"
        default = "bad_request" if status == 400 else "invalid_request"
    else:
        kind, default = "server_error", "internal_error"
    if is_anthropic:
        other = "invalid_request_error" if status < 500 else "api_error"
        kind = _ANTHROPIC_TYPES.get(status, other)
    error = {"message": message, "type": kind, "param": None, "code": code or default}
    value: dict[str, Any] = {"src": "swapchart", "error": {**error, **(details or {})}}
    if not is_anthropic:
        return value
    return {"type": "error", **value, **({"request_id": request_id.decode()} if request_id else {})}


def is_anthropic(path: str) -> bool:
    """Return True if *path* belongs to Anthropic's API."""
    return path.startswith(("/v1/messages", "/v/messages"))


def is_ollama(path: str) -> bool:
    """Return True if *path* belongs to Ollama's API."""
    return path == "/ollama" or path.startswith("/ollama/")


async def send_error(
    request: Request, send: Send, status: int, message: str, *, code: str | None = None,
    retry_after_s: float | None = None, details: Mapping[str, Any] | None = None,
    headers: Iterable[tuple[bytes, bytes]] = (),
) -> None:  # fmt: skip
    """Send an error as JSON, or as text or HTML if the request's Accept header asks for that.

    The form of Ollama's API has nothing but the message.

    Args:
        request: The request that failed.
        send: Sends ASGI messages.
        status: HTTP status, 4xx or 5xx.
        message: For a person: where, what was expected, what was found.
        code: Machine-readable reason; None means the default of the status.
        retry_after_s: Sent as Retry-After, rounded up to whole seconds.
        details: Further members of the error object.
        headers: Further headers.
    """
    if status in LOGGED_REFUSALS and request.refusals is not None:
        reason = code or _TYPES.get(status, ("", "refused"))[1]
        client = request.client or ""
        request.refusals.write(reason, message, request_id=request.request_id, client=client)
    extra = [*headers]
    if retry_after_s is not None:
        extra.append((b"retry-after", str(max(1, math.ceil(retry_after_s))).encode()))
    for_anthropic = is_anthropic(request.path)
    if for_anthropic:
        extra.append((b"request-id", request.request_id))  # beside X-Request-ID
    wanted = request.header(b"accept") or b""
    if is_ollama(request.path):
        await send_json(send, {"error": message}, status, extra)
    elif b"text/plain" in wanted and status != 429:
        await send_text(send, f"swapchart: {message}\n", status, extra)
    elif b"text/html" in wanted and status != 429:
        from html import escape  # 0.3 MB of memory with its table of entities

        page = f"<!doctype html><title>{status}</title><h1>{status}</h1><p>{escape(message)}</p>"
        extra.append((b"content-security-policy", b"default-src 'none'"))
        await send_bytes(send, status, page.encode(), b"text/html; charset=utf-8", extra)
    else:
        value = error_value(
            status, message, code=code, details=details, is_anthropic=for_anthropic,
            request_id=request.request_id,
        )  # fmt: skip
        await send_json(send, value, status, extra)


class ApiError(Exception):
    """An error response, raised by a handler; see `send_error` for the attributes."""

    def __init__(
        self, status: int, message: str, *, code: str | None = None,
        details: Mapping[str, Any] | None = None, headers: Iterable[tuple[bytes, bytes]] = (),
    ) -> None:  # fmt: skip
        super().__init__(message)
        self.status, self.message, self.code = status, message, code
        self.details, self.headers = details, headers


async def send_api_error(request: Request, send: Send, error: ApiError) -> None:
    """Send the response that *error* describes."""
    await send_error(
        request, send, error.status, error.message, code=error.code, details=error.details,
        headers=error.headers,
    )  # fmt: skip


def model_forbidden(name: str) -> ApiError:
    """Return the error for a model *name* that the request's key may not use."""
    return ApiError(403, missing_model(quoted_name(name)))


def unknown_model(request: Request, name: str, closest: str | None) -> ApiError:
    """Return the error for the unknown model *name*; suggests *closest* if the key may use it."""
    message = f"model not found: {quoted_name(name)}{closest_hint(request, closest)}"
    return ApiError(404, message, code="model_not_found")


def closest_hint(request: Request, closest: str | None) -> str:
    """Return a suggestion of the model *closest*; empty if the request's key may not use it."""
    if closest is None or not request.access.allows_model(closest):
        return ""
    return f"; did you mean {closest!r}?"


async def send_model_forbidden(request: Request, send: Send, name: str) -> None:
    """Send the error of `model_forbidden`."""
    await send_api_error(request, send, model_forbidden(name))


async def send_unknown_model(request: Request, send: Send, name: str, closest: str | None) -> None:
    """Send the error of `unknown_model`."""
    await send_api_error(request, send, unknown_model(request, name, closest))
