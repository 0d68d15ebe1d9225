"""Records of requests to models, which handlers fill in and other code counts, shows or cancels."""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import Callable, MutableSequence
from time import perf_counter, time
from typing import Any

from ....runtime import RequestWait
from ...http1.asgi_types import Headers, Message, Send
from ..request import Request

CLIENT_CLOSED_REQUEST = 499
"""Status of a request whose client disconnected, as in nginx."""

_KEEP_BYTES = 1 << 14  # of a response that is not captured
_LAST_CHUNKS = 8
_SESSION_MAX = 200
#: Ends of event streams. Clients may disconnect as soon as they have read one.
_LAST_EVENTS = (b"[DONE]", b'{"type":"message_stop"}', b'{"type": "message_stop"}')


class RequestRecord:
    """The facts of one request.

    Attributes:
        id: Number among all requests of this process; 0 before it is tracked.
        request: The request.
        method: HTTP method, such as b"POST".
        model: Name of the model in records and metrics; or the name that no model has.
        path: Path at the model's server, which tells the kind of request.
        at: Arrival; wall clock, seconds since 1970.
        started: Arrival; seconds on the performance counter, as are the following.
        admitted: When its model was ready for it, or 0.
        headers_at: When the headers of the response arrived, or 0.
        ended: When it ended, or 0.
        status: Status of the response; 0 before its headers arrived. A response that was not sent
            completely has the status of what ended it (499: the client) from then on.
        content_type: Content-Type of the response.
        content_encoding: Content-Encoding of the response, b"" without one.
        packed_headers: Headers of request and response, packed for a capture; None if that is
            still to be done.
        response_headers: Headers of the response.
        sent_bytes: Bytes of the response's body that were sent to the client.
        body_chunks: Chunks of the response's body; all of them, or the last ones.
        first_chunk: The first chunk, if ``body_chunks`` has the last ones only.
        is_whole: ``body_chunks`` has all chunks.
        keep_bytes: Size in bytes up to which all chunks are kept.
        body: Body of the request as it was forwarded, if it was read completely.
        error: Why the request failed, for people.
        code: Why the request failed, for programs.
        selector: Selector that selected the model, or "".
        priority: Priority in the queue; None without a local model.
        is_stream: The client asks for a stream.
        is_metered: The request is recorded in the activity.
        cache: Origin of the reused tokens, and what restoring them took in milliseconds; None if
            it is not known.
        cancelled_by: What cancelled the request, or "".
        on_cancel: Called when the request is cancelled while no task serves it.
        wait: How it has waited for its model; None if the model was ready.
    """

    __slots__ = (
        "_task",
        "admitted",
        "at",
        "body",
        "body_chunks",
        "cache",
        "cancelled_by",
        "code",
        "content_encoding",
        "content_type",
        "ended",
        "error",
        "first_chunk",
        "headers_at",
        "id",
        "is_metered",
        "is_stream",
        "is_whole",
        "keep_bytes",
        "method",
        "model",
        "on_cancel",
        "packed_headers",
        "path",
        "priority",
        "request",
        "response_headers",
        "selector",
        "sent_bytes",
        "started",
        "status",
        "wait",
    )  # fmt: skip

    def __init__(self, request: Request, model: str, path: str, started: float) -> None:
        self.id = 0
        self.request, self.model, self.path = request, model, path
        self.method = request.method.encode()
        self.started = started
        self.at = time()
        self.admitted = self.headers_at = self.ended = 0.0
        self.status = self.sent_bytes = 0
        self.priority: int | None = None
        self.content_type = self.content_encoding = self.first_chunk = b""
        self.packed_headers: tuple[bytes, bytes] | None = None
        self.response_headers: Headers = []
        self.body_chunks: MutableSequence[bytes] = []
        self.is_whole = True
        self.keep_bytes = _KEEP_BYTES
        self.body: bytes | None = None
        self.error = self.code = self.selector = self.cancelled_by = ""
        self.is_metered = self.is_stream = False
        self.on_cancel: Callable[[], None] | None = None
        self.wait: RequestWait | None = None
        self.cache: tuple[str, float] | None = None
        self._task: asyncio.Task[object] | None = None

    def begin_wait(self) -> RequestWait:
        """Return where the scheduler records how this request waits for its model."""
        self.wait = RequestWait(request_id=self.request.request_id.decode())
        return self.wait

    def record_headers(self, headers: Headers) -> None:
        """Record the headers of the response; names in lower case."""
        self.response_headers = headers
        for name, value in headers:
            if name == b"content-type":
                self.content_type = value
            elif name == b"content-encoding" and not self.content_encoding:
                self.content_encoding = value

    def record_full_body(self, body: bytes) -> None:
        """Record a response that was sent at once."""
        self.sent_bytes = len(body)
        self.body_chunks.append(body)

    def record_piece(self, piece: bytes) -> None:
        """Record a piece of the response's body that is sent next."""
        self.sent_bytes += len(piece)
        self.body_chunks.append(piece)
        if self.is_whole and self.sent_bytes > self.keep_bytes:
            self.keep_head_and_tail()

    def keep_head_and_tail(self) -> MutableSequence[bytes]:
        """Keep only the first and the last chunks from now on; return the last ones."""
        if self.is_whole:
            self.is_whole = False
            self.first_chunk = self.body_chunks[0]
            self.body_chunks = deque(self.body_chunks, maxlen=_LAST_CHUNKS)
        return self.body_chunks

    def end_early(self, status: int, code: str, error: str) -> None:
        """Record that the response was not sent completely, whatever status it began with.

        A stream whose last event was sent is complete.
        """
        chunks = self.body_chunks
        if self.status == 200 and chunks and chunks[-1].rstrip().endswith(_LAST_EVENTS):
            return
        at = f"after {self.sent_bytes} bytes" if self.status else "before the response began"
        self.status, self.code, self.error = status, code, f"{error} {at}"

    def cancel(self, by: str) -> None:
        """Cancel the request, which may wait for anything; does nothing if it has ended."""
        if self.ended or self.cancelled_by:
            return
        if self._task is not None:
            self.cancelled_by = by
            self._task.cancel()
        elif self.on_cancel is not None:
            self.cancelled_by = by
            self.on_cancel()


def recording_headers(record: RequestRecord, send: Send) -> Send:
    """Return *send*, which then records the headers of the response that it sends."""

    async def send_and_record(message: Message) -> None:
        if message["type"] == "http.response.start":
            record.record_headers(message["headers"])
        await send(message)

    return send_and_record


class InFlightRequests:
    """All requests to models that have not ended.

    Attributes:
        open: Id -> record.
    """

    def __init__(self) -> None:
        self.open: dict[int, RequestRecord] = {}
        self._numbers = itertools.count(1)

    def first_of(self, model: str) -> RequestRecord | None:
        """Return the oldest request for *model*, None without one."""
        return next((record for record in self.open.values() if record.model == model), None)

    def begin(self, record: RequestRecord, task: asyncio.Task[object] | None) -> None:
        """Track *record*, which *task* serves."""
        record.id = next(self._numbers)
        record._task = task
        self.open[record.id] = record

    def go_on(self, record: RequestRecord, task: asyncio.Task[object] | None) -> None:
        """Let *task* serve *record* from now on."""
        record._task, record.on_cancel = task, None

    def end(self, record: RequestRecord) -> None:
        """Note that *record* has ended, and stop tracking it."""
        record.ended = perf_counter()
        record._task = record.on_cancel = None
        self.open.pop(record.id, None)


def metadata_of(record: RequestRecord, session: str) -> dict[str, Any]:
    """Return the metadata of a request of the client's *session* for the API."""
    found: dict[str, Any] = {}
    if record.priority is not None:
        found["fifo_priority"] = str(record.priority)
    if record.selector:
        found["selector"] = record.selector
    if record.cache is not None:
        source, ms = record.cache
        found["cache_source"] = source or "none"
        if ms:
            found["cache_restore_ms"] = f"{ms:.1f}"
    if session:
        found["session"] = session
    return found


def session_of(request: Request, names: tuple[bytes, ...]) -> str:
    """Return the session of the client, by the first header of *names* that it sends, or ""."""
    cached = request.cached_headers
    if cached is not None and cached.session is not None:
        return cached.session
    session = ""
    for wanted in names:
        value = request.header(wanted)
        if value:
            session = value.decode("latin-1")[:_SESSION_MAX]
            break
    if cached is not None:
        cached.session = session
    return session
