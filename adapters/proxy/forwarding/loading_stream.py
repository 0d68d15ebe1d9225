"""Tells a client that asked for a stream how its model is coming up, in the stream itself.

The stream begins before the model is ready, so that neither the client nor a proxy between gives
up: what the client speaks decides what it is told. Where reasoning may be shown, it is told in
words; everybody gets signs of life that no client takes for content. From then on failures can
only be told in the stream too: as the error events that clients know.

Unlike llama-swap's loading state: valid chunks, facts instead of remarks, no
typing that holds back the first token, every streaming route, errors as events.
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
from ..models.public_state import shown_state
from ..responses import error_value
from .stream_formats import STREAM_FORMATS

_SHORT_S = 0.05  # what is ready or refused sooner needs no stream of its own
_ERROR_BYTES = 1 << 16
_HEAD: Headers = [
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]


class LoadingStream:
    """Waits for a model and tells the client meanwhile; then lets the answer follow.

    Args:
        supervisor: Runs the model.
        send: Goes to the client.
        exchange: The request.
        model: What the client called it.
        shows: Takes out of a text what this client may not see.
        tick_s: Between two signs of life; seconds.
    """

    def __init__(
        self, supervisor: Supervisor, send: Send, exchange: RequestRecord, model: str,
        shows: Callable[[str], str], tick_s: float,
    ) -> None:  # fmt: skip
        self._supervisor, self._send, self._exchange = supervisor, send, exchange
        self._shows, self._tick_s = shows, tick_s
        self._voice = STREAM_FORMATS[exchange.path](model)
        self._name = exchange.model
        self._ticket: QueuedRequest | None = None
        self._told = ""
        self._is_answer = False  # the model's own answer is being passed on
        self._refused: tuple[int, bytearray] | None = None
        self.has_begun = False

    async def acquire(self, priority: int, client: str) -> None:
        """Hold the model ready; pair with ``release`` of the supervisor.

        Raises:
            RequestError: It could not be had.
        """
        known = set(self._supervisor.scheduler.queue)
        loop = asyncio.get_running_loop()
        waiting = loop.create_task(
            self._supervisor.acquire(self._name, priority=priority, client=client)
        )
        try:
            await asyncio.wait({waiting}, timeout=_SHORT_S)
            self._ticket = _newest(self._supervisor, self._name, known)
            while not waiting.done():
                await self._tell(self._news())
                await asyncio.wait({waiting}, timeout=self._tick_s)
            waiting.result()
            if self.has_begun:
                took = perf_counter() - self._exchange.started
                await self._tell(self._voice.say(f"Ready after {took:.1f} s\n\n"))
        except BaseException:
            await _take_back(waiting, self._supervisor, self._name)
            raise

    def _news(self) -> bytes:
        """Return what has changed since the last time, or a sign of life."""
        text = self._state()
        if text == self._told:
            return self._voice.beat()
        first = "" if self._told else f"Loading {self._name}\n"
        self._told = text
        return self._voice.say(f"{first}{text}\n")

    def _state(self) -> str:
        queue, ticket = self._supervisor.scheduler.queue, self._ticket
        if ticket is not None and ticket in queue:
            why = f": {self._shows(ticket.why)}" if ticket.why else ""
            return f"Queue position: #{queue.index(ticket) + 1}{why}"
        life = self._supervisor[self._name]
        return f"{shown_state(life).capitalize()}: {life.state.replace('_', ' ')}"

    async def _tell(self, data: bytes) -> None:
        if not self.has_begun:
            self.has_begun = True
            await self._send({"type": "http.response.start", "status": 200, "headers": _HEAD})
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    # ---- the model's answer
    async def pass_on(self, message: Message) -> None:
        """Take what the relay sends; what is no stream of events becomes an error event."""
        if not self.has_begun:
            await self._send(message)
            return
        if message["type"] == "http.response.start":
            kinds = [value for name, value in message["headers"] if name == b"content-type"]
            is_events = message["status"] == 200 and kinds[:1] and b"event-stream" in kinds[0]
            self._is_answer = bool(is_events)
            self._refused = None if is_events else (message["status"], bytearray())
        elif self._refused is None:
            await self._send(message)
        else:
            status, body = self._refused
            body += message.get("body", b"")[: _ERROR_BYTES - len(body)]
            if not message.get("more_body", False):
                await self._end_with(_error_in(status, bytes(body)))

    async def fail(self, error: Exception) -> bool:
        """Tell the client of *error* in its stream; False: its stream has not begun, or ended."""
        if not self.has_begun or self._is_answer or self._refused is not None:
            return False
        exchange = self._exchange
        if isinstance(error, RequestError):
            exchange.status, exchange.code = error.status_hint, error.code
        elif isinstance(error, UpstreamError):
            exchange.status, exchange.code = error.status_hint, f"upstream_{error.stage}"
        elif isinstance(error, HeaderError):
            exchange.status, exchange.code = 400, "bad_request"
        exchange.error = str(error)
        text = self._shows(str(error))
        value = error_value(exchange.status or 499, text, code=exchange.code or None)
        await self._end_with(value["error"])
        return True

    async def _end_with(self, error: Mapping[str, Any]) -> None:
        data = self._voice.fail(error)
        await self._send({"type": "http.response.body", "body": data, "more_body": False})


def _newest(supervisor: Supervisor, name: str, known: set[QueuedRequest]) -> QueuedRequest | None:
    """Return the youngest ticket for *name* that was not *known* before."""
    fresh = [t for t in supervisor.scheduler.queue if t.service == name and t not in known]
    return max(fresh, key=lambda ticket: ticket.number, default=None)


async def _take_back(waiting: asyncio.Task[None], supervisor: Supervisor, name: str) -> None:
    waiting.cancel()
    (outcome,) = await asyncio.gather(waiting, return_exceptions=True)
    if outcome is None:
        supervisor.release(name)


def _error_in(status: int, body: bytes) -> Mapping[str, Any]:
    """Return the error object that a model's server answered with, or one that quotes it."""
    try:
        value = json.loads(body)
        error = value["error"]
        if isinstance(error, dict) and "message" in error:
            return {"code": str(status), **error}
    except (ValueError, KeyError, TypeError, RecursionError):
        pass
    text = body.decode("utf-8", "replace").strip()[:500]
    shown = status if status >= 400 else 502  # 200, and yet no stream of events
    error = error_value(shown, f"the model's server answered {status}: {text}")["error"]
    return dict(error)
