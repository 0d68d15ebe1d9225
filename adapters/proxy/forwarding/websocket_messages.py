"""Passes messages between a websocket of any ASGI server and a model's server.

The server in front speaks the client's half of the protocol and hands us messages; how much it
keeps of one is its own business (``--ws-max-size`` and such). Towards the model we speak the
protocol ourselves, by wsproto and without compression. In either direction at most
`_MESSAGE_BYTES` wait.

Source: RFC 6455, ASGI 2.4 (WebSocket).
"""

from __future__ import annotations

import asyncio
import base64
import logging
import secrets
from collections import deque
from contextlib import suppress

from wsproto.connection import Connection, ConnectionState, ConnectionType
from wsproto.events import (
    BytesMessage,
    CloseConnection,
    Event,
    Message,
    Ping,
    TextMessage,
)
from wsproto.frame_protocol import CloseReason
from wsproto.utilities import LocalProtocolError, RemoteProtocolError

from ...http1.asgi_types import Headers, Receive, Scope, Send
from ...http1.asgi_types import Message as AsgiMessage
from ...http1.client.pool import UpstreamError, UpstreamResponse
from .websocket import HandshakeRejectedError

log = logging.getLogger(__name__)

_MESSAGE_BYTES = 16 << 20
_TURN_FRAMES = 64  # parsed in one turn of the event loop: some 3 ms
_MESSAGE_COST = 256  # of memory, beside its payload
_STALL_S = 10.0  # longest time for a model to take nothing while `_MESSAGE_BYTES` wait
_LAST_S = 1.0  # how long it has to take what a client sent before it left
_LOOK_S = 0.5
_UNSENDABLE = frozenset({1004, 1005, 1006, 1015})  # codes that never travel
_ABNORMAL, _GOING_AWAY = 1006, 1001


class MessageClient:
    """A client behind an ASGI server that speaks WebSocket itself; a `websocket.Client`.

    Args:
        scope: Of the websocket.
        receive: Its messages; ``websocket.connect`` has been received.
        send: Where to.
    """

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        loop = asyncio.get_running_loop()
        self.left: asyncio.Future[None] = loop.create_future()
        self._scope, self._send = scope, send
        self._intake = _Intake(receive, self.left)
        self._key = base64.b64encode(secrets.token_bytes(16))

    def handshake(self) -> Headers:
        """Return fields of our own: it is we who speak to the model."""
        return [(b"sec-websocket-key", self._key), (b"sec-websocket-version", b"13")]

    async def refuse(self, error: HandshakeRejectedError) -> None:
        """Refuse the websocket: with an HTTP answer where the server can, else by closing."""
        if self.left.done():
            await self._send({"type": "websocket.close"})  # the server hears of an end
            return
        if "websocket.http.response" not in (self._scope.get("extensions") or {}):
            await self._send({"type": "websocket.close", "code": 1008})
            return
        headers = [*error.headers, (b"content-length", str(len(error.body)).encode())]
        await self._send(
            {"type": "websocket.http.response.start", "status": error.status, "headers": headers}
        )
        await self._send({"type": "websocket.http.response.body", "body": error.body})

    async def serve(self, response: UpstreamResponse, subprotocol: str | None) -> None:
        """Accept the websocket, and pass messages until one side ends."""
        await self._send({"type": "websocket.accept", "subprotocol": subprotocol, "headers": []})
        await _Pump(self._intake, self._send, response).run()

    def close(self) -> None:
        """Ask for no message any more."""
        self._intake.close()


class _Intake:
    """Receives a client's messages ahead of who sends them on: so it is known when it leaves.

    Attributes:
        end: The last message, once it is here.
    """

    def __init__(self, receive: Receive, left: asyncio.Future[None]) -> None:
        self.end: AsgiMessage | None = None
        self._receive, self._left = receive, left
        self._waiting: deque[tuple[Event, int]] = deque()
        self._size = 0
        self._changed = asyncio.Event()
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        try:
            while (message := await self._receive())["type"] != "websocket.disconnect":
                text = message.get("text")
                data = message["bytes"] if text is None else text
                size = len(data) + _MESSAGE_COST
                event = BytesMessage(data=data) if text is None else TextMessage(data=data)
                self._waiting.append((event, size))
                self._size += size
                self._changed.set()
                while self._size > _MESSAGE_BYTES:
                    self._changed.clear()
                    await self._changed.wait()
            self.end = message
        finally:
            self._changed.set()
            if not self._left.done():
                self._left.set_result(None)

    @property
    def is_full(self) -> bool:
        """True while the client is not received from."""
        return self._size > _MESSAGE_BYTES

    async def next(self) -> Event | None:
        """Return the next message; None: the client has ended."""
        while not self._waiting:
            if self._task.done():
                return None
            self._changed.clear()
            await self._changed.wait()
        event, size = self._waiting.popleft()
        self._size -= size
        self._changed.set()
        return event

    def close(self) -> None:
        """Receive nothing any more."""
        self._task.cancel()
        self._waiting.clear()


class _Pump:
    """Passes messages between a client and a model's server."""

    def __init__(self, intake: _Intake, send: Send, response: UpstreamResponse) -> None:
        self._intake, self._send, self._response = intake, send, response
        self._connection = Connection(ConnectionType.CLIENT)
        self._message = bytearray()

    async def run(self) -> None:
        """Pass messages until one side ends."""
        loop = asyncio.get_running_loop()
        up, down = loop.create_task(self._up()), loop.create_task(self._down())
        try:
            await asyncio.wait({up, down}, return_when=asyncio.FIRST_COMPLETED)
            for task in (up, down):
                if task.done():
                    task.result()
        finally:
            for task in (up, down):
                task.cancel()
            await asyncio.gather(up, down, return_exceptions=True)

    async def _up(self) -> None:
        """Pass the client's messages to the model's server."""
        while (event := await self._intake.next()) is not None:
            self._write(event)
            if not await self._drains():
                await self._close(CloseReason.INTERNAL_ERROR, "the model's server does not read")
                return
        message = self._intake.end or {}
        code = message.get("code") or _ABNORMAL
        code = _GOING_AWAY if code in _UNSENDABLE else code
        self._write(CloseConnection(code=code, reason=message.get("reason") or None))
        with suppress(UpstreamError):  # its answer, or its end: nobody is left to be told
            await self._response.read(timeout_s=1.0)

    async def _drains(self) -> bool:
        """Wait until the model's server takes more; False: in vain, or for a client that left."""
        stalled_s, waiting = 0.0, self._response.undelivered
        while stalled_s < (_STALL_S if self._intake.end is None else _LAST_S):
            try:
                async with asyncio.timeout(_LOOK_S):
                    await self._response.drain()
            except TimeoutError:
                is_awaited = self._intake.is_full or self._intake.end is not None
                is_stuck = self._response.undelivered >= waiting
                stalled_s = stalled_s + _LOOK_S if is_awaited and is_stuck else 0.0
                waiting = self._response.undelivered
            else:
                return True
        return False

    def _write(self, event: Event) -> None:
        with suppress(LocalProtocolError):  # it is closing already
            self._response.write(self._connection.send(event))

    async def _down(self) -> None:
        """Pass the messages of the model's server to the client."""
        while self._connection.state is not ConnectionState.CLOSED:
            try:
                data = await self._response.read()
            except UpstreamError:
                data = b""
            if not data:
                await self._close(_GOING_AWAY, "the model's server is gone")
                return
            if not await self._parse(data):
                return

    async def _parse(self, data: bytes) -> bool:
        """Act on a piece of what came; tells whether there is more to come."""
        try:
            self._connection.receive_data(data)
            for count, event in enumerate(self._connection.events()):  # parses as it goes
                if not await self._take(event):
                    return False
                if count % _TURN_FRAMES == 0:
                    await asyncio.sleep(0)
        except RemoteProtocolError as error:
            log.info("a websocket of a model's server broke the rules: %s", error)
            self._write(CloseConnection(code=CloseReason.PROTOCOL_ERROR))
            await self._close(CloseReason.INTERNAL_ERROR, "the model's server broke the rules")
            return False
        return True

    async def _take(self, event: Event) -> bool:
        """Act on one event; tells whether there is more to come."""
        if isinstance(event, Ping):
            self._write(event.response())
            await self._response.drain()  # who pings has to read
        elif isinstance(event, CloseConnection):
            self._write(event.response())
            await self._close(event.code, event.reason)
            return False
        elif isinstance(event, Message):
            self._message += event.data.encode() if isinstance(event.data, str) else event.data
            if len(self._message) > _MESSAGE_BYTES:
                self._write(CloseConnection(code=CloseReason.MESSAGE_TOO_BIG))
                await self._close(CloseReason.MESSAGE_TOO_BIG, None)
                return False
            if event.message_finished:
                await self._pass_down(isinstance(event, TextMessage))
        return True

    async def _pass_down(self, is_text: bool) -> None:
        message, self._message = self._message, bytearray()
        if is_text:
            await self._send({"type": "websocket.send", "text": message.decode()})
        else:
            await self._send({"type": "websocket.send", "bytes": bytes(message)})

    async def _close(self, code: int, reason: str | None) -> None:
        code = CloseReason.NORMAL_CLOSURE if code in _UNSENDABLE else code
        await self._send({"type": "websocket.close", "code": int(code), "reason": reason or ""})
