"""Passes bytes both ways between a client's websocket and a model's server.

Frames are not looked into: what the two have negotiated (compression, a subprotocol), the codes
they close with and messages of any length pass as they come, and nothing is collected. A side that
does not read holds the other one up.

One that does not read must not hide the end of the other, though, which stands behind all that it
has sent before. So when a side has taken nothing for `_PATIENCE_S`, the other is read on, until
`_HELD_BYTES` are kept; when it has taken nothing for long after that, the tunnel ends.

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

_HELD_BYTES = 1 << 24  # kept at most in one direction of a tunnel
_HELD_TOGETHER_BYTES = 1 << 27  # and in all of them
_MUCH_BYTES = 1 << 22
_PATIENCE_S = 0.5
_MODEL_STALL_S = 10.0  # longest time for a model to take nothing of `_HELD_BYTES`
_CLIENT_STALL_S = 60.0  # the same for a client
_LAST_S = 1.0  # how long the model has to take what a client sent before it left
_CLOSING_S = 10.0  # longest time from a close frame to the end of a connection
_GOING_AWAY, _INTERNAL_ERROR = 1001, 1011
_NOT_PASSED = frozenset({b"content-length"})


class Stream(Protocol):
    """The client's connection, see `client_stream.ClientStream`."""

    left: asyncio.Future[None]
    finished: asyncio.Future[None]

    @property
    def is_full(self) -> bool:
        """True while it does not keep up with what is written."""
        ...

    @property
    def unsent(self) -> int:
        """Bytes that were written and are still in memory."""
        ...

    @property
    def undelivered(self) -> int:
        """Bytes that were written and that it has not taken."""
        ...

    async def read(self) -> bytes:
        """Return what has come; b"" at the end."""
        ...

    def write(self, data: bytes) -> None:
        """Send *data*."""
        ...

    async def drain(self) -> None:
        """Wait until the client takes more, or is gone."""
        ...

    def switch(self, headers: Headers) -> None:
        """Answer the handshake with 101."""
        ...

    def respond(self, status: int, headers: Headers, body: bytes) -> None:
        """Refuse the handshake with a response."""
        ...

    def close(self) -> None:
        """Close when everything was sent."""
        ...


class StreamClient:
    """A client whose connection is a stream of bytes; a `websocket.Client`."""

    def __init__(self, scope: Scope, stream: Stream) -> None:
        self.left = stream.left
        self._scope, self._stream = scope, stream

    def handshake(self) -> Headers:
        """Return the client's own fields: the handshake is between it and the model."""
        return [field for field in self._scope["headers"] if field[0] in HANDSHAKE]

    async def refuse(self, error: HandshakeRejectedError) -> None:
        """Refuse the websocket by a response."""
        self._stream.respond(error.status, error.headers, error.body)

    async def serve(self, response: UpstreamResponse, subprotocol: str | None) -> None:
        """Accept the websocket, and pass what is sent until one side ends."""
        try:
            headers = response_headers(response.headers, strip=_NOT_PASSED)
        except HeaderError as error:
            message = f"the model's server answered the websocket handshake wrongly: {error}"
            raise refusal(502, message) from error
        self._stream.switch(headers)
        await Tunnel(self._stream, response).run()

    def close(self) -> None:
        """Let go."""
        self._stream.close()


class Sink(Protocol):
    """Where one direction of a tunnel goes to."""

    @property
    def is_full(self) -> bool:
        """True while it does not keep up with what is written."""
        ...

    @property
    def unsent(self) -> int:
        """Bytes that were written and are still in memory."""
        ...

    @property
    def undelivered(self) -> int:
        """Bytes that were written and that it has not taken."""
        ...

    def write(self, data: bytes) -> None:
        """Send *data*."""
        ...

    async def drain(self) -> None:
        """Wait until it takes more, or is gone."""
        ...


class StalledError(Exception):
    """A side takes nothing, and what waits for it is as much as may wait."""


class _Held:
    """Bytes that wait, in all tunnels, for sides that take nothing."""

    total = 0


class Flow:
    """One direction of a tunnel, to a side that may not read.

    Args:
        sink: The side.
        stall_s: How long it may take nothing when all that may wait for it waits; seconds.

    Attributes:
        frames: Position in what was passed.
    """

    def __init__(self, sink: Sink, stall_s: float) -> None:
        self.frames = FrameTracker()
        self._sink, self._stall_s = sink, stall_s
        self._is_stuck = False
        self._held = self._most = 0  # in memory
        self._waiting = 0  # undelivered when that was looked at, and what was written since

    async def pass_on(self, data: bytes) -> None:
        """Send *data*, and wait until more may be read.

        Raises:
            StalledError: The side takes nothing.
        """
        self._sink.write(data)
        self.frames.feed(data)
        self._waiting += len(data)
        if not self._sink.is_full:
            self._note()
        elif not await self._has_room():
            await self._wait_long()

    def close(self, _: object = None) -> None:
        """Count no more what waited, and return its memory."""
        self._hold(0)
        if self._most >= _MUCH_BYTES:
            return_freed_soon()

    async def _has_room(self) -> bool:
        """Wait while the side takes something, and then tell whether more may be read."""
        self._note()
        while not self._is_stuck:
            if await self._drains(_PATIENCE_S):
                self._hold(0)
                return True
            self._note(is_waiting=True)
        await asyncio.sleep(0)
        return self._held < _HELD_BYTES and _Held.total < _HELD_TOGETHER_BYTES

    async def _wait_long(self) -> None:
        while not await self._drains(self._stall_s):
            self._note(is_waiting=True)
            if self._is_stuck:
                raise StalledError
            if self._held < _HELD_BYTES // 2:
                break

    def _note(self, *, is_waiting: bool = False) -> None:
        """Note what waits, and whether the side is stuck: it has taken nothing *is_waiting*."""
        waiting = self._sink.undelivered
        if waiting < self._waiting:
            self._is_stuck = False
        elif is_waiting:
            self._is_stuck = True
        self._waiting = waiting
        self._hold(self._sink.unsent if self._sink.is_full else 0)

    def _hold(self, size: int) -> None:
        _Held.total += size - self._held
        self._held = size
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
        """Pass bytes until one side ends; says to the client why, unless the model did."""
        loop = asyncio.get_running_loop()
        up, down = loop.create_task(self._pass_up()), loop.create_task(self._pass_down())
        code, reason = _GOING_AWAY, ""
        try:
            await self._wait_end(up, down)
            if down.done():
                reason = "the model's server is gone"
            if _is_stalled(up):
                log.info("a model's server took nothing of a websocket for %g s", _MODEL_STALL_S)
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
        elif not down.done() and not _is_stalled(up):  # the client has ended: the model may answer
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
            log.debug("a model's server broke a websocket off: %s", error)

    def _note_closing(self) -> None:
        is_closing = self._up.frames.is_closing or self._down.frames.is_closing
        if is_closing and not self._closing.done():
            self._closing.set_result(None)


def _is_stalled(task: asyncio.Task[None]) -> bool:
    return task.done() and isinstance(task.exception(), StalledError)
