"""ASGI ``send`` of a forwarding: translates the response of a model's server to Ollama's API.

- An event stream becomes JSON lines. What goes wrong after its beginning is a line with an `error`,
  as in Ollama, and the response ends there.
- Any other response is kept until its end and becomes one JSON object.
- Errors, of the proxy or of the server, become ``{"error": text}`` with their status.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from time import perf_counter
from typing import Any, Literal, TypeAlias

import msgspec

from ....http1.asgi_types import Headers, Message, Send
from ...accounting.request_record import RequestRecord
from ...responses import JSON_TYPE, send_bytes
from .answers import Answer, Json, Times
from .event_lines import EventLines, EventTooLargeError

LINES_TYPE = b"application/x-ndjson"
_ERROR_BYTES = 1 << 16
_SHOWN_CHARS = 500
_KEPT_HEADERS = frozenset({b"retry-after", b"x-should-retry", b"www-authenticate", b"connection"})
#: (whole response of the server, times of the request) -> response for the client.
Whole: TypeAlias = Callable[[Mapping[str, Any], Times], Json]
_Mode: TypeAlias = Literal["", "lines", "whole", "error"]


class Responder:
    """Sends the response to one request.

    Args:
        send: Sends ASGI messages to the client.
        record: Record of the request, for its times.
        whole: Translates a response that is not a stream.
        answer: Translates the events of a stream; None means that none was asked for.
        limit_bytes: Largest response that is kept until its end.

    Attributes:
        has_begun: The client has got the beginning of a stream.
        has_ended: The client has got all of a response.
    """

    def __init__(
        self, send: Send, record: RequestRecord, whole: Whole, *, answer: Answer | None = None,
        limit_bytes: int,
    ) -> None:  # fmt: skip
        self._send, self._record, self._whole = send, record, whole
        self._answer, self._limit_bytes = answer, limit_bytes
        self._mode: _Mode = ""
        self._status, self._headers = 0, list[tuple[bytes, bytes]]()
        self._events, self._kept = EventLines(), bytearray()
        self._first = 0.0
        self.has_begun = self.has_ended = False

    async def __call__(self, message: Message) -> None:
        """Send an ASGI message of the response that is translated."""
        if message["type"] == "http.response.start":
            await self._begin(message["status"], message["headers"])
            return
        piece: bytes = message.get("body", b"")
        is_last = not message.get("more_body", False)
        if piece and not self._first:
            self._first = perf_counter()
        if self.has_ended:
            return
        if self._mode == "lines":
            await self._pass_on(piece, is_last=is_last)
        else:
            await self._keep(piece, is_last=is_last)

    async def fail(self, message: str, status: int = 502) -> None:
        """Report an error: in the stream if it has begun, else as a response."""
        if self.has_ended:
            return
        self.has_ended = True
        body = _encoded({"error": message})
        if self.has_begun:
            await self._send_body(body + b"\n", is_last=True)
        else:
            await send_bytes(self._send, status, body, JSON_TYPE, self._headers)

    # ---- the two kinds of responses
    async def _begin(self, status: int, headers: Headers) -> None:
        kind = next((value for name, value in headers if name == b"content-type"), b"")
        self._status = status
        if status != 200:
            self._mode = "error"
            self._headers = [field for field in headers if field[0] in _KEPT_HEADERS]
        elif self._answer is not None and b"event-stream" in kind:
            self._mode = "lines"
            await self._begin_lines()
        else:
            self._mode = "whole"

    async def _begin_lines(self) -> None:
        self.has_begun = True
        fields = [(b"content-type", LINES_TYPE), (b"x-content-type-options", b"nosniff")]
        await self._send({"type": "http.response.start", "status": 200, "headers": fields})

    async def _pass_on(self, piece: bytes, *, is_last: bool) -> None:
        answer, out = self._answer, bytearray()
        assert answer is not None, "there are lines"
        try:
            events = self._events.feed(piece)
            if is_last:
                events += self._events.end()
            for data in events:
                if data == b"[DONE]":
                    answer.has_ended = is_last = True
                    break
                record = answer.empty() if not data else answer.piece(_event(data))
                if record is not None:
                    out += _encoded(record) + b"\n"
        except (_StreamError, EventTooLargeError) as error:
            if out:
                await self._send_body(bytes(out))
            await self.fail(str(error))
            return
        if not is_last:
            if out:
                await self._send_body(bytes(out))
            return
        if not answer.has_ended:
            if out:
                await self._send_body(bytes(out))
            await self.fail("the model's server ended its stream early")
            return
        self.has_ended = True
        out += b"".join(_encoded(record) + b"\n" for record in answer.end(self._times()))
        await self._send_body(bytes(out), is_last=True)

    async def _keep(self, piece: bytes, *, is_last: bool) -> None:
        limit_bytes = _ERROR_BYTES if self._mode == "error" else self._limit_bytes
        if self._mode == "whole" and len(self._kept) + len(piece) > limit_bytes:
            await self.fail(f"the response of the model's server is larger than {limit_bytes} B")
            return
        self._kept += piece[: limit_bytes - len(self._kept)]
        if not is_last:
            return
        body = bytes(self._kept)
        if self._mode == "error":
            await self.fail(error_in(body, self._status), self._status)
            return
        try:
            given = _object(body)
            if given.get("error"):
                await self.fail(error_in(body, self._status))
                return
            value = self._whole(given, self._times())
        except ValueError as error:
            await self.fail(f"the response of the model's server is not as expected: {error}")
            return
        self.has_ended = True
        is_stream = self._answer is not None
        body, kind = _encoded(value), LINES_TYPE if is_stream else JSON_TYPE
        await send_bytes(self._send, 200, body + b"\n" * is_stream, kind)

    async def _send_body(self, body: bytes, *, is_last: bool = False) -> None:
        await self._send({"type": "http.response.body", "body": body, "more_body": not is_last})

    def _times(self) -> Times:
        record = self._record
        return Times(
            started=record.started, admitted=record.admitted, first=self._first,
            ended=perf_counter(),
        )  # fmt: skip


class _StreamError(Exception):
    """An event of a stream is an error."""


def _event(data: bytes) -> Mapping[str, Any]:
    """Return the JSON object in an event.

    Raises:
        _StreamError: It is an error, or no JSON object.
    """
    try:
        value = _object(data)
    except ValueError as error:
        raise _StreamError(f"the model's server sent an event that is no JSON: {error}") from error
    if value.get("error"):
        raise _StreamError(error_in(data, 500))
    return value


def _object(data: bytes) -> dict[str, Any]:
    """Return the JSON object *data*.

    Raises:
        ValueError: It is none.
    """
    try:
        value = msgspec.json.decode(data)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ValueError(str(error)) from error
    if not isinstance(value, dict):
        raise ValueError("expected a JSON object")
    return value


def error_in(body: bytes, status: int) -> str:
    """Return the text of an error response: that of Ollama's, OpenAI's or another form."""
    text = body.decode("utf-8", "replace").strip()
    try:
        error = _object(body).get("error")
    except ValueError:
        return text[:_SHOWN_CHARS] or f"the model's server responded {status}"
    if isinstance(error, dict):
        error = error.get("message")
    return error if isinstance(error, str) and error else text[:_SHOWN_CHARS]


def _encoded(value: object) -> bytes:
    return msgspec.json.encode(value)
