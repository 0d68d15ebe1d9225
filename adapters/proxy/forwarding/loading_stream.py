"""Loading progress in the event stream of a client whose model is not ready.

The stream begins before the model is ready, so that neither the client nor a proxy in between times
out. The client's API decides the format of the events. Clients whose API has a place for reasoning
get the progress as text; all others get keep-alive events, which are not content. Once the stream
has begun, a failure can only be reported in it, as an error event of the client's API.

In contrast to llama-swap's loading state, all chunks are valid, the text is limited to facts, no
typing effect delays the first token, every streaming route is supported, and errors are events.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from time import perf_counter
from typing import Any

from ....runtime import RequestError, Supervisor
from ....runtime.scheduling import QueuedRequest
from ...http1.asgi_types import Headers, Message, Send
from ...http1.client.pool import UpstreamError
from ...http1.headers import HeaderError
from ..accounting.request_record import RequestRecord
from ..models.public_state import public_state
from ..responses import error_value
from .stream_formats import STREAM_FORMATS

_SHORT_S = 0.05  # a model that is ready or rejected sooner needs no progress
_ERROR_BYTES = 1 << 16
_HEAD: Headers = [
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]


class LoadingStream:
    """Acquires a model and reports its progress meanwhile; then continues with the response.

    Args:
        supervisor: Runs the model.
        send: Sends ASGI messages to the client.
        record: Record of the request.
        model: Name of the model in the request.
        shows: Removes from a text what this client may not see.
        tick_s: Interval of keep-alive events, in seconds, > 0.

    Attributes:
        has_begun: Something was sent to the client.
    """

    def __init__(
        self, supervisor: Supervisor, send: Send, record: RequestRecord, model: str,
        shows: Callable[[str], str], tick_s: float,
    ) -> None:  # fmt: skip
        self._supervisor, self._send, self._record = supervisor, send, record
        self._shows, self._tick_s = shows, tick_s
        self._format = STREAM_FORMATS[record.path](model)
        self._name = record.model
        self._queued: QueuedRequest | None = None
        self._progress = ""
        self._is_response = False  # the model's own stream is being relayed
        self._error_response: tuple[int, bytearray] | None = None
        self.has_begun = False

    async def acquire(self, priority: int, client: str) -> None:
        """Acquire the model; pair with ``Supervisor.release``.

        Raises:
            RequestError: The request is rejected, or the model does not become ready.
        """
        known = set(self._supervisor.scheduler.queue)
        loop = asyncio.get_running_loop()
        waiting = loop.create_task(
            self._supervisor.acquire(
                self._name, priority=priority, client=client, wait=self._record.begin_wait()
            )
        )
        try:
            await asyncio.wait({waiting}, timeout=_SHORT_S)
            self._queued = _newest(self._supervisor, self._name, known)
            while not waiting.done():
                await self._send_event(self._event())
                await asyncio.wait({waiting}, timeout=self._tick_s)
            waiting.result()
            if self.has_begun:
                took = perf_counter() - self._record.started
                text = f"Ready after {took:.1f} s\n{self._format.mark}\n"
                await self._send_event(self._format.progress(text))
        except BaseException:
            await _cancel_acquire(waiting, self._supervisor, self._name)
            raise

    def _event(self) -> bytes:
        """Return an event with the progress if it has changed, else a keep-alive event."""
        text = self._state()
        if text == self._progress:
            return self._format.keep_alive()
        first = "" if self._progress else f"{self._format.mark}Loading {self._name}\n"
        self._progress = text
        return self._format.progress(f"{first}{text}\n")

    def _state(self) -> str:
        queue, queued = self._supervisor.scheduler.queue, self._queued
        if queued is not None and queued in queue:
            why = f": {self._shows(queued.why)}" if queued.why else ""
            return f"Queue position: #{queue.index(queued) + 1}{why}"
        life = self._supervisor[self._name]
        return f"{public_state(life).capitalize()}: {life.state.replace('_', ' ')}"

    async def _send_event(self, data: bytes) -> None:
        if not self.has_begun:
            self.has_begun = True
            await self._send({"type": "http.response.start", "status": 200, "headers": _HEAD})
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    # ---- the model's response
    async def pass_on(self, message: Message) -> None:
        """Send a message of the response; any content but events becomes an error event."""
        if not self.has_begun:
            await self._send(message)
            return
        if message["type"] == "http.response.start":
            kinds = [value for name, value in message["headers"] if name == b"content-type"]
            is_events = message["status"] == 200 and kinds[:1] and b"event-stream" in kinds[0]
            self._is_response = bool(is_events)
            self._error_response = None if is_events else (message["status"], bytearray())
        elif self._error_response is None:
            await self._send(message)
        else:
            status, body = self._error_response
            body += message.get("body", b"")[: _ERROR_BYTES - len(body)]
            if not message.get("more_body", False):
                await self._end_with(_error_in(status, bytes(body)))

    async def fail(self, error: Exception, message: str) -> bool:
        """Send *error* as an event; False means the stream has not begun, or is the model's own.

        Args:
            error: What happened.
            message: The same for the client.
        """
        if not self.has_begun or self._is_response or self._error_response is not None:
            return False
        record = self._record
        if isinstance(error, RequestError):
            record.status, record.code = error.status_hint, error.code
        elif isinstance(error, UpstreamError):
            record.status, record.code = error.status_hint, f"upstream_{error.stage}"
        elif isinstance(error, HeaderError):
            record.status, record.code = 400, "bad_request"
        record.error = str(error)
        text = self._shows(message)
        value = error_value(
            record.status or 499, text, code=record.code or None,
            is_anthropic=record.path.endswith("/messages"),
        )  # fmt: skip
        await self._end_with(value["error"])
        return True

    async def _end_with(self, error: Mapping[str, Any]) -> None:
        data = self._format.error(error)
        await self._send({"type": "http.response.body", "body": data, "more_body": False})


def _newest(supervisor: Supervisor, name: str, known: set[QueuedRequest]) -> QueuedRequest | None:
    """Return the newest queued request for *name* that is not among *known*."""
    fresh = [t for t in supervisor.scheduler.queue if t.service == name and t not in known]
    return max(fresh, key=lambda queued: queued.number, default=None)


async def _cancel_acquire(waiting: asyncio.Task[None], supervisor: Supervisor, name: str) -> None:
    waiting.cancel()
    (outcome,) = await asyncio.gather(waiting, return_exceptions=True)
    if outcome is None:
        supervisor.release(name)


def _error_in(status: int, body: bytes) -> Mapping[str, Any]:
    """Return the error object of a model server's response, or one that quotes the response."""
    try:
        value = json.loads(body)
        error = value["error"]
        if isinstance(error, dict) and "message" in error:
            return {"code": str(status), **error}
    except (ValueError, KeyError, TypeError, RecursionError):
        pass
    text = body.decode("utf-8", "replace").strip()[:500]
    shown = status if status >= 400 else 502  # 200, but not an event stream
    error = error_value(shown, f"the model's server answered {status}: {text}")["error"]
    return dict(error)
