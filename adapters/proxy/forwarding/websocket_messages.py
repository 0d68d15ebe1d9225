"""WebSocket tunnel of messages between any ASGI server and a model's server.

The ASGI server implements the client's side of the protocol, with its own size limits
(``--ws-max-size`` and such). The model's side is implemented here with wsproto, without
compression. At most `_MESSAGE_BYTES` are buffered in each direction.

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
_TURN_FRAMES = 64  # parsed in one turn of the event loop: about 3 ms
_MESSAGE_COST = 256  # bytes of memory for a message, besides its payload
_STALL_S = 10.0  # longest time for a model to accept nothing while `_MESSAGE_BYTES` wait
_LAST_S = 1.0  # time for it to accept what a client sent before it disconnected
_CHECK_S = 0.5
_UNSENDABLE = frozenset({1004, 1005, 1006, 1015})  # codes that never travel
_ABNORMAL, _GOING_AWAY = 1006, 1001


class MessageClient:
    """A client behind an ASGI server that implements WebSocket; a `websocket.Client`.

    Args:
        scope: ASGI scope of the websocket.
        receive: Receives ASGI messages; ``websocket.connect`` has been received.
        send: Sends ASGI messages.
    """

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        loop = asyncio.get_running_loop()
        self.left: asyncio.Future[None] = loop.create_future()
        self._scope, self._send = scope, send
        self._intake = _Intake(receive, self.left)
        self._key = base64.b64encode(secrets.token_bytes(16))

    def handshake(self) -> Headers:
        """Return headers of this proxy, which is the model's WebSocket client."""
        return [(b"sec-websocket-key", self._key), (b"sec-websocket-version", b"13")]

    async def refuse(self, error: HandshakeRejectedError) -> None:
        """Reject the handshake with an HTTP response, or by closing if the server has none."""
        if self.left.done():
            await self._send({"type": "websocket.close"})  # the server expects one
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
        """Accept the handshake, and pass messages until one side closes."""
        await self._send({"type": "websocket.accept", "subprotocol": subprotocol, "headers": []})
        await _Pump(self._intake, self._send, response).run()

    def close(self) -> None:
        """Stop receiving."""
        self._intake.close()


class _Intake:
    """Receives a client's messages ahead of their delivery, to notice a disconnect at once.

    Attributes:
        end: The disconnect message; None before it was received.
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
        """True while receiving is paused."""
        return self._size > _MESSAGE_BYTES

    async def next(self) -> Event | None:
        """Return the next message; None means the client has disconnected."""
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
        """Stop receiving, and drop what was not delivered."""
        self._task.cancel()
        self._waiting.clear()


class _Pump:
    """Passes messages between a client and a model's server."""

    def __init__(self, intake: _Intake, send: Send, response: UpstreamResponse) -> None:
        self._intake, self._send, self._response = intake, send, response
        self._connection = Connection(ConnectionType.CLIENT)
        self._message = bytearray()

    async def run(self) -> None:
        """Pass messages until one side closes."""
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
            if not await self._wait_drained():
                await self._close(CloseReason.INTERNAL_ERROR, "the model's server does not read")
                return
        message = self._intake.end or {}
        code = message.get("code") or _ABNORMAL
        code = _GOING_AWAY if code in _UNSENDABLE else code
        self._write(CloseConnection(code=code, reason=message.get("reason") or None))
        with suppress(UpstreamError):  # its close frame, or its end
            await self._response.read(timeout_s=1.0)

    async def _wait_drained(self) -> bool:
        """Wait until the model's server accepts more; return False if it does not in time."""
        stalled_s, waiting = 0.0, self._response.undelivered
        while stalled_s < (_STALL_S if self._intake.end is None else _LAST_S):
            try:
                async with asyncio.timeout(_CHECK_S):
                    await self._response.drain()
            except TimeoutError:
                is_awaited = self._intake.is_full or self._intake.end is not None
                is_stuck = self._response.undelivered >= waiting
                stalled_s = stalled_s + _CHECK_S if is_awaited and is_stuck else 0.0
                waiting = self._response.undelivered
            else:
                return True
        return False

    def _write(self, event: Event) -> None:
        with suppress(LocalProtocolError):  # the connection is closing already
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
        """Process received bytes; return False if the websocket is closed."""
        try:
            self._connection.receive_data(data)
            for count, event in enumerate(self._connection.events()):  # parses as it goes
                if not await self._process(event):
                    return False
                if count % _TURN_FRAMES == 0:
                    await asyncio.sleep(0)
        except RemoteProtocolError as error:
            log.info("a model's server violated the WebSocket protocol: %s", error)
            self._write(CloseConnection(code=CloseReason.PROTOCOL_ERROR))
            await self._close(
                CloseReason.INTERNAL_ERROR, "protocol violation by the model's server"
            )
            return False
        return True

    async def _process(self, event: Event) -> bool:
        """Process one event; return False if the websocket is closed."""
        if isinstance(event, Ping):
            self._write(event.response())
            await self._response.drain()  # a server that pings must read the pongs
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
