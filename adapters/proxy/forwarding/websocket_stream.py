"""WebSocket tunnel of bytes between a client and a model's server.

Payloads are not parsed: compression, subprotocols, close codes and messages of any length pass
unchanged, without buffering. A side that does not read throttles the other.

A side that does not read must not hide that the other has closed, since the close arrives after all
data before it. So when a side has accepted nothing for `_PATIENCE_S`, the other is read on until
`_BUFFER_BYTES` are buffered. If the side then accepts nothing for its stall limit, the tunnel ends.

Source: RFC 6455.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Protocol

from ...http1.asgi_types import Headers, Scope
from ...http1.client.pool import UpstreamError, UpstreamResponse
from ...http1.freed_memory import return_freed_soon
from ...http1.headers import HeaderError, response_headers
from .websocket import HANDSHAKE, HandshakeRejectedError, refusal
from .websocket_frames import FrameTracker, close_frame

log = logging.getLogger(__name__)

_BUFFER_BYTES = 1 << 24  # buffered at most in one direction of a tunnel
_TOTAL_BUFFER_BYTES = 1 << 27  # the same for all tunnels together
_MUCH_BYTES = 1 << 22
_PATIENCE_S = 0.5
_MODEL_STALL_S = 10.0  # longest time for a model to accept nothing while `_BUFFER_BYTES` wait
_CLIENT_STALL_S = 60.0  # the same for a client
_LAST_S = 1.0  # time for the model to accept what a client sent before it disconnected
_CLOSING_S = 10.0  # longest time from a close frame to the end of a connection
_GOING_AWAY, _INTERNAL_ERROR = 1001, 1011
_NOT_PASSED = frozenset({b"content-length"})


class Stream(Protocol):
    """The client's connection, see `client_stream.ClientStream`."""

    left: asyncio.Future[None]
    finished: asyncio.Future[None]

    @property
    def is_full(self) -> bool:
        """True while it does not keep up with writes."""
        ...

    @property
    def unsent(self) -> int:
        """Bytes written that are still in memory."""
        ...

    @property
    def undelivered(self) -> int:
        """Bytes written that it has not accepted."""
        ...

    async def read(self) -> bytes:
        """Return the bytes that have arrived; b"" at the end."""
        ...

    def write(self, data: bytes) -> None:
        """Send *data*."""
        ...

    async def drain(self) -> None:
        """Wait until the client accepts more, or has disconnected."""
        ...

    def switch(self, headers: Headers) -> None:
        """Respond to the handshake with 101."""
        ...

    def respond(self, status: int, headers: Headers, body: bytes) -> None:
        """Reject the handshake with a response."""
        ...

    def close(self) -> None:
        """Close once everything is sent."""
        ...


class StreamClient:
    """A client whose connection is a stream of bytes; a `websocket.Client`."""

    def __init__(self, scope: Scope, stream: Stream) -> None:
        self.left = stream.left
        self._scope, self._stream = scope, stream

    def handshake(self) -> Headers:
        """Return the client's own headers: the handshake is between it and the model."""
        return [header for header in self._scope["headers"] if header[0] in HANDSHAKE]

    async def refuse(self, error: HandshakeRejectedError) -> None:
        """Reject the handshake with a response."""
        self._stream.respond(error.status, error.headers, error.body)

    async def serve(self, response: UpstreamResponse, subprotocol: str | None) -> None:
        """Accept the handshake, and pass bytes until one side closes."""
        try:
            headers = response_headers(response.headers, strip=_NOT_PASSED)
        except HeaderError as error:
            message = f"invalid websocket handshake of the model's server: {error}"
            raise refusal(502, message) from error
        self._stream.switch(headers)
        await Tunnel(self._stream, response).run()

    def close(self) -> None:
        """Release the connection."""
        self._stream.close()


class Sink(Protocol):
    """Receiving side of one direction of a tunnel."""

    @property
    def is_full(self) -> bool:
        """True while it does not keep up with writes."""
        ...

    @property
    def unsent(self) -> int:
        """Bytes written that are still in memory."""
        ...

    @property
    def undelivered(self) -> int:
        """Bytes written that it has not accepted."""
        ...

    def write(self, data: bytes) -> None:
        """Send *data*."""
        ...

    async def drain(self) -> None:
        """Wait until it accepts more, or has disconnected."""
        ...


class StalledError(Exception):
    """A side accepts nothing, and its buffer is full."""


class _Buffered:
    """Bytes buffered in all tunnels together."""

    total = 0


class Flow:
    """One direction of a tunnel, to a side that may not read.

    Args:
        sink: The receiving side.
        stall_s: Longest time for it to accept nothing while its buffer is full, in seconds, > 0.

    Attributes:
        frames: Position in the frames that were passed.
    """

    def __init__(self, sink: Sink, stall_s: float) -> None:
        self.frames = FrameTracker()
        self._sink, self._stall_s = sink, stall_s
        self._is_stuck = False
        self._buffered = self._most = 0  # bytes in memory
        self._waiting = 0  # bytes undelivered at the last check, plus those written since

    async def pass_on(self, data: bytes) -> None:
        """Send *data*, and wait until more may be read.

        Raises:
            StalledError: The side accepts nothing.
        """
        self._sink.write(data)
        self.frames.feed(data)
        self._waiting += len(data)
        if not self._sink.is_full:
            self._check()
        elif not await self._has_room():
            await self._wait_long()

    def close(self, _: object = None) -> None:
        """Release the buffer, and return its memory to the system."""
        self._set_buffered(0)
        if self._most >= _MUCH_BYTES:
            return_freed_soon()

    async def _has_room(self) -> bool:
        """Wait while the side accepts data; then return True if more may be read."""
        self._check()
        while not self._is_stuck:
            if await self._drains(_PATIENCE_S):
                self._set_buffered(0)
                return True
            self._check(is_waiting=True)
        await asyncio.sleep(0)
        return self._buffered < _BUFFER_BYTES and _Buffered.total < _TOTAL_BUFFER_BYTES

    async def _wait_long(self) -> None:
        while not await self._drains(self._stall_s):
            self._check(is_waiting=True)
            if self._is_stuck:
                raise StalledError
            if self._buffered < _BUFFER_BYTES // 2:
                break

    def _check(self, *, is_waiting: bool = False) -> None:
        """Update the buffer size, and whether the side is stuck: accepted nothing *is_waiting*."""
        waiting = self._sink.undelivered
        if waiting < self._waiting:
            self._is_stuck = False
        elif is_waiting:
            self._is_stuck = True
        self._waiting = waiting
        self._set_buffered(self._sink.unsent if self._sink.is_full else 0)

    def _set_buffered(self, size: int) -> None:
        _Buffered.total += size - self._buffered
        self._buffered = size
        self._most = max(self._most, size)

    async def _drains(self, limit_s: float) -> bool:
        try:
            async with asyncio.timeout(limit_s):
                await self._sink.drain()
        except TimeoutError:
            return False
        return True


class Tunnel:
    """Both directions between a client and a model's server."""

    def __init__(self, client: Stream, response: UpstreamResponse) -> None:
        self._client, self._response = client, response
        self._up = Flow(response, _MODEL_STALL_S)
        self._down = Flow(client, _CLIENT_STALL_S)
        self._closing: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def run(self) -> None:
        """Pass bytes until one side closes; send a close frame unless the model sent one."""
        loop = asyncio.get_running_loop()
        up, down = loop.create_task(self._pass_up()), loop.create_task(self._pass_down())
        code, reason = _GOING_AWAY, ""
        try:
            await self._wait_end(up, down)
            if down.done():
                reason = "the model's server is gone"
            if _is_stalled(up):
                log.info("a model's server read nothing from a websocket for %g s", _MODEL_STALL_S)
                code, reason = _INTERNAL_ERROR, "the model's server does not read"
        finally:
            for task in (up, down):
                task.cancel()
            await asyncio.gather(up, down, return_exceptions=True)
            self._up.close()
            self._client.finished.add_done_callback(self._down.close)
            if self._down.frames.is_between and not self._down.frames.is_closing:
                self._client.write(close_frame(code, reason))

    async def _wait_end(self, up: asyncio.Task[None], down: asyncio.Task[None]) -> None:
        ends = {up, down, self._client.left}
        first = asyncio.FIRST_COMPLETED
        done, _ = await asyncio.wait({*ends, self._closing}, return_when=first)
        if done == {self._closing}:
            await asyncio.wait(ends, timeout=_CLOSING_S, return_when=first)
        elif not down.done() and not _is_stalled(up):  # the client closed: the model may respond
            await asyncio.wait({down}, timeout=_LAST_S)
        for task in (up, down):
            error = task.exception() if task.done() else None
            if error is not None and not isinstance(error, StalledError):
                raise error

    async def _pass_up(self) -> None:
        while data := await self._client.read():
            await self._up.pass_on(data)
            self._note_closing()
        self._response.end_writing()

    async def _pass_down(self) -> None:
        try:
            while data := await self._response.read():
                await self._down.pass_on(data)
                self._note_closing()
        except UpstreamError as error:
            log.debug("a model's server aborted a websocket: %s", error)

    def _note_closing(self) -> None:
        is_closing = self._up.frames.is_closing or self._down.frames.is_closing
        if is_closing and not self._closing.done():
            self._closing.set_result(None)


def _is_stalled(task: asyncio.Task[None]) -> bool:
    return task.done() and isinstance(task.exception(), StalledError)
