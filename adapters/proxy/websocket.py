"""Tunnels websockets to a model's server: messages both ways, with their close codes.

The server in front of us speaks the client's half of the protocol and hands us messages; towards
the model we speak it ourselves, by wsproto. The model is made ready before anything is accepted,
so that a refusal is an ordinary HTTP answer.

Source: RFC 6455, llama-swap.md section 3.8.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import logging
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from time import perf_counter
from typing import Any

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

from ...runtime import RequestError
from ..headers import HeaderError, request_headers
from ..upstream import UpstreamError, UpstreamResponse
from .asgi_types import Headers, Receive, Scope, Send
from .asgi_types import Message as AsgiMessage
from .auth import NOT_PASSED_ON
from .catalogue import Local
from .exchange import Exchange
from .peers import peer_fields
from .relay import Upstream
from .request import Request
from .resolve import Resolved
from .respond import error_value
from .state import Proxy

log = logging.getLogger(__name__)

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_MESSAGE_BYTES = 16 << 20
_REFUSAL_BYTES = 1 << 16
_NOT_OURS = frozenset(
    {
        b"sec-websocket-key", b"sec-websocket-version", b"sec-websocket-extensions",
        b"sec-websocket-protocol", b"sec-websocket-accept",
    }
)  # fmt: skip
_UNSENDABLE = frozenset({1004, 1005, 1006, 1015})  # codes that never travel
_ABNORMAL, _GOING_AWAY = 1006, 1001


class RefusedError(Exception):
    """The websocket does not come about.

    Attributes:
        status: HTTP status for the client.
        headers: Of the answer.
        body: Of the answer.
    """

    def __init__(self, status: int, headers: Headers, body: bytes) -> None:
        super().__init__(f"refused with {status}")
        self.status, self.headers, self.body = status, headers, body


def refusal(status: int, message: str, code: str | None = None) -> RefusedError:
    """Return a refusal with our usual error envelope."""
    body = json.dumps(error_value(status, message, code=code)).encode()
    return RefusedError(status, [(b"content-type", b"application/json")], body)


@dataclass(frozen=True, slots=True)
class Opening:
    """A websocket that wants to be opened to a model.

    Attributes:
        resolved: The model.
        target: Path and query for its server.
        ignores: It neither starts the model nor keeps it up.
        client: Who asks; see `Access`.
        shows: Takes out of a text what the client may not see.
    """

    resolved: Resolved
    target: bytes
    ignores: bool
    client: str = ""
    shows: Callable[[str], str] = str


async def tunnel(
    proxy: Proxy, scope: Scope, receive: Receive, send: Send, opening: Opening
) -> None:  # fmt: skip
    """Open a websocket to a model and pass messages until one side closes.

    Args:
        proxy: What all share.
        scope: Of the websocket.
        receive: Its messages; ``websocket.connect`` has been received.
        send: Where to.
        opening: What it is for.
    """
    request = Request({**scope, "method": "GET"}, receive)
    target = opening.resolved.target
    exchange = Exchange(request, target.id, scope["path"], perf_counter())
    ahead = _Ahead(receive)
    try:
        async with AsyncExitStack() as stack:
            async with ahead.unless_left():
                upstream = await stack.enter_async_context(_held(proxy, exchange, opening))
                response = await _connect(proxy, request, upstream, opening)
                stack.callback(response.close)
            await _accept(send, scope, response)
            exchange.status = 101
            await _Pump(ahead.receive, send, response).run()
    except _LeftError:
        await send({"type": "websocket.close"})  # nobody is told; but the server hears of an end
    except RefusedError as error:
        await deny(scope, send, error)
    except RequestError as error:
        await deny(scope, send, refusal(error.status_hint, opening.shows(str(error)), error.code))
    except (UpstreamError, HeaderError) as error:
        status = getattr(error, "status_hint", 400)
        await deny(scope, send, refusal(status, f"the server of {target.id} failed: {error}"))
    finally:
        ahead.close()


class _LeftError(Exception):
    """The client left before its websocket was open."""


class _Ahead:
    """Receives a client's next message before anybody asks: so it is known when it leaves."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._next = asyncio.ensure_future(receive())
        self._is_taken = False

    async def receive(self) -> AsgiMessage:
        """Return the next message."""
        if self._is_taken:
            return await self._receive()
        self._is_taken = True
        return await self._next

    @asynccontextmanager
    async def unless_left(self) -> AsyncIterator[None]:
        """Cut the block short when the client leaves.

        Raises:
            _LeftError: It has.
        """
        loop = asyncio.get_running_loop()

        def look(done: asyncio.Future[AsgiMessage]) -> None:
            has_message = not done.cancelled() and done.exception() is None
            if has_message and done.result()["type"] == "websocket.disconnect":
                limit.reschedule(loop.time())

        try:
            async with asyncio.timeout(None) as limit:
                self._next.add_done_callback(look)
                try:
                    yield
                finally:
                    self._next.remove_done_callback(look)
        except TimeoutError as error:
            if limit.expired():
                raise _LeftError from error
            raise

    def close(self) -> None:
        """Ask for no message any more."""
        self._next.cancel()


async def deny(scope: Scope, send: Send, error: RefusedError) -> None:
    """Refuse a websocket: with an HTTP answer where the server can, else by closing."""
    if "websocket.http.response" not in (scope.get("extensions") or {}):
        await send({"type": "websocket.close", "code": 1008})
        return
    headers = [*error.headers, (b"content-length", str(len(error.body)).encode())]
    await send(
        {"type": "websocket.http.response.start", "status": error.status, "headers": headers}
    )
    await send({"type": "websocket.http.response.body", "body": error.body})


@asynccontextmanager
async def _held(proxy: Proxy, exchange: Exchange, opening: Opening) -> AsyncIterator[Upstream]:
    """Hold the model ready while the block lasts, unless it ignores websockets."""
    target = opening.resolved.target
    if not isinstance(target, Local):
        yield proxy.upstream_of_peer(target.card)
        return
    name, supervisor = target.card.id, proxy.supervisor
    if opening.ignores:
        if supervisor.scheduler.seats[name].phase != "ready":
            message = f"model {name} is not loaded; ignored websocket requests cannot start it"
            raise refusal(409, message)
        yield proxy.upstream_of(target.card)
        return
    proxy.flights.begin(exchange, asyncio.current_task())
    try:
        if not supervisor.acquire_nowait(name):
            await supervisor.acquire(name, priority=target.card.priority, client=opening.client)
        try:
            yield proxy.upstream_of(target.card)
        finally:
            supervisor.release(name)
    finally:
        proxy.flights.end(exchange)


async def _connect(
    proxy: Proxy, request: Request, upstream: Upstream, opening: Opening
) -> UpstreamResponse:
    """Do the handshake with the model's server.

    Raises:
        RefusedError: It answers with something else than an upgrade.
        UpstreamError: It does not answer.
    """
    key = base64.b64encode(secrets.token_bytes(16))
    fields = [
        *_fields(proxy, request, upstream, opening),
        (b"Sec-WebSocket-Key", key),
        (b"Sec-WebSocket-Version", b"13"),
    ]
    offered = request.scope.get("subprotocols") or []
    protocols = proxy.gate.ring.protocols_without_keys(offered)
    if protocols:
        fields.append((b"Sec-WebSocket-Protocol", ", ".join(protocols).encode("latin-1")))
    response = await upstream.pool.request(
        b"GET", upstream.prefix + opening.target, fields, header_timeout_s=upstream.header_timeout_s
    )
    try:
        if not response.upgraded:
            raise RefusedError(*await _refusal_of(response))
        expected = base64.b64encode(hashlib.sha1(key + _GUID).digest())
        if _header(response, b"sec-websocket-accept") != expected:
            raise refusal(502, "the model's server answered the websocket handshake wrongly")
    except BaseException:
        response.close()
        raise
    return response


def _fields(
    proxy: Proxy, request: Request, upstream: Upstream, opening: Opening
) -> list[tuple[bytes, bytes]]:
    is_keyed = not proxy.gate.ring.is_empty
    target = opening.resolved.target
    given = proxy.gate.ring.without_keys(request.headers)
    headers = [field for field in given if field[0] not in _NOT_OURS]
    if not isinstance(target, Local):
        fields = peer_fields(
            headers, host=upstream.host, api_key=target.card.api_key,
            strips_credentials=is_keyed, mark=proxy.gate.mark,
        )  # fmt: skip
        return [*fields, (b"Connection", b"Upgrade"), (b"Upgrade", b"websocket")]
    client = request.client
    return request_headers(
        headers,
        host=request.header(b"host") or upstream.host,
        client=None if client is None else client.encode(),
        strip=NOT_PASSED_ON if is_keyed else frozenset(),
        upgrade=b"websocket",
        trust_forwarded=proxy.trusts(client),
    )


async def _refusal_of(response: UpstreamResponse) -> tuple[int, Headers, bytes]:
    body = b""
    while len(body) < _REFUSAL_BYTES and (piece := await response.read()):
        body += piece
    kind = _header(response, b"content-type")
    headers: Headers = [] if kind is None else [(b"content-type", kind)]
    status = response.status if response.status >= 300 else 502
    return status, headers, body[:_REFUSAL_BYTES]


def _header(response: UpstreamResponse, name: bytes) -> bytes | None:
    return next((value for key, value in response.headers if key.lower() == name), None)


async def _accept(send: Send, scope: Scope, response: UpstreamResponse) -> None:
    chosen = _header(response, b"sec-websocket-protocol")
    subprotocol = None if chosen is None else chosen.decode("latin-1")
    if subprotocol is not None and subprotocol not in (scope.get("subprotocols") or []):
        raise refusal(502, "the model's server chose a subprotocol that nobody offered")
    await send({"type": "websocket.accept", "subprotocol": subprotocol, "headers": []})


class _Pump:
    """Passes messages between a client and a model's server."""

    def __init__(self, receive: Receive, send: Send, response: UpstreamResponse) -> None:
        self._receive, self._send, self._response = receive, send, response
        self._connection = Connection(ConnectionType.CLIENT)
        self._pieces: list[Any] = []
        self._size = 0

    async def run(self) -> None:
        """Pass messages until one side closes."""
        loop = asyncio.get_running_loop()
        tasks = {loop.create_task(self._up()), loop.create_task(self._down())}
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _up(self) -> None:
        """Pass the client's messages to the model's server."""
        while True:
            message = await self._receive()
            if message["type"] == "websocket.disconnect":
                code = message.get("code") or _ABNORMAL
                code = _GOING_AWAY if code in _UNSENDABLE else code
                self._write(CloseConnection(code=code, reason=message.get("reason") or None))
                with suppress(UpstreamError):  # its answer, or its end: nobody is left to be told
                    await self._response.read(timeout_s=1.0)
                return
            text = message.get("text")
            if text is not None:
                self._write(TextMessage(data=text))
            else:
                self._write(BytesMessage(data=message["bytes"]))
            await self._response.drain()

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
            try:
                self._connection.receive_data(data)
                for event in self._connection.events():
                    if not await self._take(event):
                        return
            except RemoteProtocolError as error:
                log.info("a websocket of a model's server broke the rules: %s", error)
                self._write(CloseConnection(code=CloseReason.PROTOCOL_ERROR))
                await self._close(CloseReason.INTERNAL_ERROR, "the model's server broke the rules")
                return

    async def _take(self, event: Event) -> bool:
        """Act on one event; tells whether there is more to come."""
        if isinstance(event, Ping):
            self._write(event.response())
        elif isinstance(event, CloseConnection):
            self._write(event.response())
            await self._close(event.code, event.reason)
            return False
        elif isinstance(event, Message):
            self._pieces.append(event.data)
            self._size += len(event.data)
            if self._size > _MESSAGE_BYTES:
                self._write(CloseConnection(code=CloseReason.MESSAGE_TOO_BIG))
                await self._close(CloseReason.MESSAGE_TOO_BIG, None)
                return False
            if event.message_finished:
                await self._pass_down(isinstance(event, TextMessage))
        return True

    async def _pass_down(self, is_text: bool) -> None:
        pieces, self._pieces, self._size = self._pieces, [], 0
        if is_text:
            await self._send({"type": "websocket.send", "text": "".join(pieces)})
        else:
            await self._send({"type": "websocket.send", "bytes": b"".join(pieces)})

    async def _close(self, code: int, reason: str | None) -> None:
        code = CloseReason.NORMAL_CLOSURE if code in _UNSENDABLE else code
        await self._send({"type": "websocket.close", "code": int(code), "reason": reason or ""})
