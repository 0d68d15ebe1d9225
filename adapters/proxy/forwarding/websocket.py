"""Opens websockets to a model's server, and holds the model ready until either side ends.

The model is made ready before anything is accepted, so that a refusal is an ordinary HTTP answer.
Where the client's connection is ours as a stream (`client_stream.TUNNEL`) the handshake is between
client and model, and `websocket_stream` passes bytes both ways. Under any other ASGI server
`websocket_messages` passes messages.

Source: RFC 6455.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import Protocol

from ....runtime import RequestError
from ...http1.asgi_types import Headers, Scope
from ...http1.client.pool import UpstreamError, UpstreamResponse
from ...http1.headers import HeaderError, request_headers
from ..access.api_keys import NOT_PASSED_ON
from ..accounting.request_record import RequestRecord
from ..context import ProxyContext
from ..models.catalog import LocalModel
from ..models.resolver import ResolvedModel
from ..request import Request
from ..responses import error_value
from ..upstreams import Upstream
from .peer_headers import peer_fields

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_REFUSAL_BYTES = 1 << 16
HANDSHAKE = frozenset({b"sec-websocket-key", b"sec-websocket-version", b"sec-websocket-extensions"})
"""Names, in lower case, of the fields that a handshake is made of, but for the subprotocols."""

_NOT_OURS = HANDSHAKE | {b"sec-websocket-accept", b"sec-websocket-protocol"}


class Client(Protocol):
    """Client's side of a websocket.

    Attributes:
        left: Resolved when the client has left.
    """

    left: asyncio.Future[None]

    def handshake(self) -> Headers:
        """Return the fields of `HANDSHAKE` that go to the model's server."""
        ...

    async def refuse(self, error: HandshakeRejectedError) -> None:
        """Refuse the websocket."""
        ...

    async def serve(self, response: UpstreamResponse, subprotocol: str | None) -> None:
        """Accept the websocket, and pass what is sent until one side ends.

        Args:
            response: The model's answer to the handshake.
            subprotocol: That it chose; one of those offered.
        """
        ...

    def close(self) -> None:
        """Let go."""
        ...


class HandshakeRejectedError(Exception):
    """The websocket does not come about.

    Attributes:
        status: HTTP status for the client.
        headers: Of the answer.
        body: Of the answer.
    """

    def __init__(self, status: int, headers: Headers, body: bytes) -> None:
        super().__init__(f"refused with {status}")
        self.status, self.headers, self.body = status, headers, body


def refusal(status: int, message: str, code: str | None = None) -> HandshakeRejectedError:
    """Return a refusal with our usual error envelope."""
    body = json.dumps(error_value(status, message, code=code)).encode()
    return HandshakeRejectedError(status, [(b"content-type", b"application/json")], body)


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

    resolved: ResolvedModel
    target: bytes
    ignores: bool
    client: str = ""
    shows: Callable[[str], str] = str


async def tunnel(proxy: ProxyContext, scope: Scope, client: Client, opening: Opening) -> None:
    """Open a websocket to a model and pass what is sent until one side ends.

    Args:
        proxy: What all share.
        scope: Of the websocket.
        client: Who opens it.
        opening: What it is for.
    """
    request = Request({**scope, "method": "GET"}, _nothing)
    target = opening.resolved.target
    exchange = RequestRecord(request, target.id, scope["path"], perf_counter())
    try:
        async with AsyncExitStack() as stack:
            async with _unless_left(client.left):
                upstream = await stack.enter_async_context(_held(proxy, exchange, opening))
                response = await _connect(proxy, request, client, upstream, opening)
                stack.callback(response.close)
            subprotocol = _subprotocol(scope, response)
            exchange.status = 101
            await client.serve(response, subprotocol)
    except _LeftError:
        await client.refuse(refusal(400, "the client left"))
    except HandshakeRejectedError as error:
        await client.refuse(error)
    except RequestError as error:
        await client.refuse(refusal(error.status_hint, opening.shows(str(error)), error.code))
    except (UpstreamError, HeaderError) as error:
        status = getattr(error, "status_hint", 400)
        await client.refuse(refusal(status, f"the server of {target.id} failed: {error}"))
    finally:
        client.close()


class _LeftError(Exception):
    """The client left before its websocket was open."""


@asynccontextmanager
async def _unless_left(left: asyncio.Future[None]) -> AsyncIterator[None]:
    """Cut the block short when the client leaves.

    Raises:
        _LeftError: It has.
    """
    loop = asyncio.get_running_loop()
    is_over = False

    def cut(_: object) -> None:
        if not is_over:
            limit.reschedule(loop.time())

    try:
        async with asyncio.timeout(None) as limit:
            left.add_done_callback(cut)
            try:
                yield
            finally:
                is_over = True
                left.remove_done_callback(cut)
    except TimeoutError as error:
        if limit.expired():
            raise _LeftError from error
        raise


async def _nothing() -> dict[str, object]:
    raise RuntimeError("the handshake of a websocket has no body")


@asynccontextmanager
async def _held(
    proxy: ProxyContext, exchange: RequestRecord, opening: Opening
) -> AsyncIterator[Upstream]:
    """Hold the model ready while the block lasts, unless it ignores websockets."""
    target = opening.resolved.target
    if not isinstance(target, LocalModel):
        yield proxy.upstreams.of_peer(target.card)
        return
    name, supervisor = target.card.id, proxy.supervisor
    if opening.ignores:
        if supervisor.scheduler.services[name].phase != "ready":
            message = f"model {name} is not loaded; ignored websocket requests cannot start it"
            raise refusal(409, message)
        yield proxy.upstreams.of_model(target.card)
        return
    proxy.in_flight.begin(exchange, asyncio.current_task())
    try:
        if not supervisor.acquire_nowait(name):
            await supervisor.acquire(name, priority=target.card.priority, client=opening.client)
        try:
            yield proxy.upstreams.of_model(target.card)
        finally:
            supervisor.release(name)
    finally:
        proxy.in_flight.end(exchange)


async def _connect(
    proxy: ProxyContext, request: Request, client: Client, upstream: Upstream, opening: Opening
) -> UpstreamResponse:
    """Do the handshake with the model's server.

    Raises:
        HandshakeRejectedError: It answers with something else than an upgrade.
        UpstreamError: It does not answer.
    """
    handshake = client.handshake()
    key = dict(handshake)[b"sec-websocket-key"]
    fields = [*_fields(proxy, request, upstream, opening), *handshake]
    offered = request.scope.get("subprotocols") or []
    protocols = proxy.admission.ring.protocols_without_keys(offered)
    if protocols:
        fields.append((b"Sec-WebSocket-Protocol", ", ".join(protocols).encode("latin-1")))
    response = await upstream.pool.request(
        b"GET", upstream.prefix + opening.target, fields, header_timeout_s=upstream.header_timeout_s
    )
    try:
        if not response.upgraded:
            raise HandshakeRejectedError(*await _refusal_of(response, upstream.stall_s))
        expected = base64.b64encode(hashlib.sha1(key + _GUID).digest())
        if _header(response, b"sec-websocket-accept") != expected:
            raise refusal(502, "the model's server answered the websocket handshake wrongly")
    except BaseException:
        response.close()
        raise
    return response


def _fields(
    proxy: ProxyContext, request: Request, upstream: Upstream, opening: Opening
) -> list[tuple[bytes, bytes]]:
    is_keyed = not proxy.admission.ring.is_empty
    target = opening.resolved.target
    given = proxy.admission.ring.without_keys(request.headers)
    headers = [field for field in given if field[0] not in _NOT_OURS]
    if not isinstance(target, LocalModel):
        fields = peer_fields(
            headers, host=upstream.host, api_key=target.card.api_key,
            strips_credentials=is_keyed, mark=proxy.admission.mark,
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


async def _refusal_of(
    response: UpstreamResponse, stall_s: float | None
) -> tuple[int, Headers, bytes]:
    body = b""
    while len(body) < _REFUSAL_BYTES and (piece := await response.read(timeout_s=stall_s)):
        body += piece
    kind = _header(response, b"content-type")
    headers: Headers = [] if kind is None else [(b"content-type", kind)]
    status = response.status if response.status >= 300 else 502
    return status, headers, body[:_REFUSAL_BYTES]


def _header(response: UpstreamResponse, name: bytes) -> bytes | None:
    return next((value for key, value in response.headers if key.lower() == name), None)


def _subprotocol(scope: Scope, response: UpstreamResponse) -> str | None:
    chosen = _header(response, b"sec-websocket-protocol")
    subprotocol = None if chosen is None else chosen.decode("latin-1")
    if subprotocol is not None and subprotocol not in (scope.get("subprotocols") or []):
        raise refusal(502, "the model's server chose a subprotocol that nobody offered")
    return subprotocol
