"""One request for a model and what became of it, for whoever counts, shows or cancels."""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import Callable, MutableSequence
from time import time
from typing import Any

from ...http1.asgi_types import Headers
from ..request import Request

_ENDS_BYTES = 1 << 14  # an answer beyond it is not kept whole unless somebody captures it
_LAST_PIECES = 8


class RequestRecord:
    """What happened to one request.

    Attributes:
        id: Number among all requests of this run; 0 while it is not counted.
        request: Itself.
        method: Such as b"POST".
        model: Name under which it is counted.
        path: Path at the model's server that tells what kind of request it is.
        at: When it came; wall clock, seconds since 1970.
        started: When it came; seconds on the performance counter.
        admitted: When its model was ready for it, or 0.
        head: When the head of the answer came, or 0.
        ended: When it was over, or 0.
        status: Of the answer; 0 while there is none.
        content_type: Of the answer.
        answer_headers: Of the answer.
        sent_bytes: Of the answer's body.
        body_chunks: Of the answer's body: all of them, or the last ones only.
        first_chunk: The first piece, when ``body_chunks`` are not all.
        is_whole: ``body_chunks`` are all.
        keep_bytes: So many bytes of the answer are kept whole.
        body: Of the request, as it was sent on, if it was read whole.
        error: Why it failed, in words.
        code: The same for programs.
        selector: By which the model was chosen, or "".
        priority: In the queue.
        is_stream: The client asked for a stream.
        is_metered: It is written down when it is over.
        cancelled_by: Who cancelled it, in words, or "".
        on_cancel: Called when somebody does while no task serves it.
    """

    __slots__ = (
        "_task",
        "admitted",
        "answer_headers",
        "at",
        "body",
        "body_chunks",
        "cancelled_by",
        "code",
        "content_type",
        "ended",
        "error",
        "first_chunk",
        "head",
        "id",
        "is_metered",
        "is_stream",
        "is_whole",
        "keep_bytes",
        "method",
        "model",
        "on_cancel",
        "path",
        "priority",
        "request",
        "selector",
        "sent_bytes",
        "started",
        "status",
    )  # fmt: skip

    def __init__(self, request: Request, model: str, path: str, started: float) -> None:
        self.id = 0
        self.request, self.model, self.path = request, model, path
        self.method = request.method.encode()
        self.started = started
        self.at = time()
        self.admitted = self.head = self.ended = 0.0
        self.status = self.sent_bytes = self.priority = 0
        self.content_type = self.first_chunk = b""
        self.answer_headers: Headers = []
        self.body_chunks: MutableSequence[bytes] = []
        self.is_whole = True
        self.keep_bytes = _ENDS_BYTES
        self.body: bytes | None = None
        self.error = self.code = self.selector = self.cancelled_by = ""
        self.is_metered = self.is_stream = False
        self.on_cancel: Callable[[], None] | None = None
        self._task: asyncio.Task[object] | None = None

    def record_headers(self, headers: Headers) -> None:
        """Note the fields of the answer; names in lower case."""
        self.answer_headers = headers
        for name, value in headers:
            if name == b"content-type":
                self.content_type = value

    def record_full_body(self, body: bytes) -> None:
        """Note that the whole answer was sent at once."""
        self.sent_bytes = len(body)
        self.body_chunks.append(body)

    def keep_head_and_tail(self) -> MutableSequence[bytes]:
        """From now on keep the first and the last pieces of the answer only; returns these."""
        if self.is_whole:
            self.is_whole = False
            self.first_chunk = self.body_chunks[0]
            self.body_chunks = deque(self.body_chunks, maxlen=_LAST_PIECES)
        return self.body_chunks

    def cancel(self, by: str) -> None:
        """End the request, whatever it waits for; a no-op when it is over."""
        if self.ended or self.cancelled_by:
            return
        if self._task is not None:
            self.cancelled_by = by
            self._task.cancel()
        elif self.on_cancel is not None:
            self.cancelled_by = by
            self.on_cancel()


class InFlightRequests:
    """All requests for models that are not over.

    Attributes:
        open: Id -> exchange.
    """

    def __init__(self) -> None:
        self.open: dict[int, RequestRecord] = {}
        self._numbers = itertools.count(1)

    def begin(self, exchange: RequestRecord, task: asyncio.Task[object] | None) -> None:
        """Count *exchange*, which *task* serves."""
        exchange.id = next(self._numbers)
        exchange._task = task
        self.open[exchange.id] = exchange

    def go_on(self, exchange: RequestRecord, task: asyncio.Task[object] | None) -> None:
        """From now on *task* serves *exchange*."""
        exchange._task, exchange.on_cancel = task, None

    def end(self, exchange: RequestRecord) -> None:
        """It is over."""
        exchange._task = exchange.on_cancel = None
        self.open.pop(exchange.id, None)


def metadata_of(exchange: RequestRecord) -> dict[str, Any]:
    """Return what is noted about a request besides its fields."""
    found: dict[str, Any] = {"fifo_priority": str(exchange.priority)}
    if exchange.selector:
        found["selector"] = exchange.selector
    return found
