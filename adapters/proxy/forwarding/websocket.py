"""WebSocket tunnels to model servers.

A model is acquired until either side closes. It is ready before the handshake is accepted, so a
rejection is an ordinary HTTP response. Under our own HTTP layer (`client_stream.TUNNEL`) client and
model do the handshake with each other, and `websocket_stream` passes bytes in both directions.
Under any other ASGI server `websocket_messages` passes messages.

Source: RFC 6455.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from time import perf_counter
from typing import Protocol

from ....dataclass import dataclass
from ....runtime import RequestError
from ...http1.asgi_types import Headers, Scope
from ...http1.client.pool import UpstreamError, UpstreamResponse
from ...http1.headers import HeaderError
from ..accounting.request_record import RequestRecord
from ..context import ProxyContext
from ..models.catalog import LocalModel
from ..models.resolver import ResolvedModel
from ..request import Request
from ..responses import error_value
from ..upstreams import Upstream
from .model_use import note_failure, release_kept
from .start_rules import NOT_LOADED
from .upstream_headers import model_request_headers, peer_request_headers

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_REFUSAL_BYTES = 1 << 16
HANDSHAKE = frozenset({b"sec-websocket-key", b"sec-websocket-version", b"sec-websocket-extensions"})
"""Names, in lower case, of the headers of a handshake, without the subprotocols."""

_NOT_FORWARDED = HANDSHAKE | {b"sec-websocket-accept", b"sec-websocket-protocol"}


class Client(Protocol):
    """Client's side of a websocket.

    Attributes:
        left: Resolved when the client has disconnected.
    """

    left: asyncio.Future[None]

    def handshake(self) -> Headers:
        """Return the headers of `HANDSHAKE` for the model's server."""
        ...

    async def refuse(self, error: HandshakeRejectedError) -> None:
        """Reject the handshake."""
        ...

    async def serve(self, response: UpstreamResponse, subprotocol: str | None) -> None:
        """Accept the handshake, and pass data until one side closes.

        Args:
            response: The model's response to the handshake.
            subprotocol: The one it chose, of those offered; None if it chose none.
        """
        ...

    def close(self) -> None:
        """Release the connection."""
        ...


class HandshakeRejectedError(Exception):
    """The handshake is rejected with an HTTP response.

    Attributes:
        status: Of the response.
        headers: Of the response.
        body: Of the response.
        code: Reason for programs, if this proxy has rejected it; else empty.
    """

    def __init__(
        self, status: int, headers: Headers, body: bytes, message: str = "", code: str = ""
    ) -> None:
        super().__init__(message or f"refused with {status}")
        self.status, self.headers, self.body, self.code = status, headers, body, code


def refusal(status: int, message: str, code: str | None = None) -> HandshakeRejectedError:
    """Return a rejection whose body is an error object."""
    value = error_value(status, message, code=code)
    headers: Headers = [(b"content-type", b"application/json")]
    body = json.dumps(value).encode()
    return HandshakeRejectedError(status, headers, body, message, value["error"]["code"])


@dataclass(frozen=True, slots=True)
class Opening:
    """A websocket to be opened to a model.

    Attributes:
        resolved: The model.
        target: Path and query for its server.
        ignores: The websocket neither loads the model nor keeps it loaded.
        client: Identifies the API key; see ``Access.client``.
        shows: Removes from a text what the client may not see.
        keep_s: Idle limit in seconds that X-Keep-Alive sets, infinity for none; None without it.
        may_start: The websocket may start the model.
    """

    resolved: ResolvedModel
    target: bytes
    ignores: bool
    client: str = ""
    shows: Callable[[str], str] = str
    keep_s: float | None = None
    may_start: bool = True


async def tunnel(proxy: ProxyContext, scope: Scope, client: Client, opening: Opening) -> None:
    """Open a websocket to a model and pass data until one side closes.

    Args:
        proxy: What all requests share.
        scope: ASGI scope of the websocket.
        client: The client's side.
        opening: The model's side.
    """
    request = Request({**scope, "method": "GET"}, _nothing)
    target = opening.resolved.target
    record = RequestRecord(request, target.recorded_name, scope["path"], perf_counter())
    try:
        async with AsyncExitStack() as stack:
            async with _until_disconnect(client.left):
                upstream = await stack.enter_async_context(_acquired(proxy, record, opening))
                response = await _connect(proxy, request, client, upstream, opening)
                stack.callback(response.close)
            subprotocol = _subprotocol(scope, response)
            record.status = 101
            await client.serve(response, subprotocol)
    except _DisconnectedError:
        await client.refuse(refusal(400, "the client disconnected"))
    except HandshakeRejectedError as error:
        await client.refuse(error)
    except RequestError as error:
        if error.code != NOT_LOADED:
            proxy.rejections.write(
                error.code, f"{target.id}: {error}", request_id=request.request_id, model=target.id
            )
        await client.refuse(refusal(error.status_hint, opening.shows(str(error)), error.code))
    except (UpstreamError, HeaderError) as error:
        status = getattr(error, "status_hint", 400)
        await client.refuse(refusal(status, f"the server of {target.id} failed: {error}"))
    finally:
        client.close()


class _DisconnectedError(Exception):
    """The client disconnected before its websocket was open."""


@asynccontextmanager
async def _until_disconnect(left: asyncio.Future[None]) -> AsyncIterator[None]:
    """Cancel the block when the client disconnects.

    Raises:
        _DisconnectedError: It has disconnected.
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
            raise _DisconnectedError from error
        raise


async def _nothing() -> dict[str, object]:
    raise RuntimeError("the handshake of a websocket has no body")


@asynccontextmanager
async def _acquired(
    proxy: ProxyContext, record: RequestRecord, opening: Opening
) -> AsyncIterator[Upstream]:
    """Acquire the model for the block, unless it ignores websockets; yield its upstream."""
    target = opening.resolved.target
    if not isinstance(target, LocalModel):
        yield proxy.upstreams.of_peer(target.definition)
        return
    name, supervisor = target.definition.id, proxy.supervisor
    if opening.ignores:
        if supervisor.scheduler.services[name].phase != "ready":
            message = f"model {name} is not loaded; ignored websocket requests cannot start it"
            raise refusal(409, message)
        yield proxy.upstreams.of_model(target.definition)
        return
    proxy.in_flight.begin(record, asyncio.current_task())
    try:
        if not supervisor.acquire_nowait(name):
            await supervisor.acquire(
                name, priority=target.definition.priority, client=opening.client,
                may_start=opening.may_start, wait=record.begin_wait(),
            )  # fmt: skip
        try:
            yield proxy.upstreams.of_model(target.definition)
        except UpstreamError as error:
            note_failure(proxy, target, error)
            raise
        finally:
            release_kept(proxy, target, opening.keep_s)
    finally:
        proxy.in_flight.end(record)


async def _connect(
    proxy: ProxyContext, request: Request, client: Client, upstream: Upstream, opening: Opening
) -> UpstreamResponse:
    """Do the handshake with the model's server.

    Raises:
        HandshakeRejectedError: The response is not an upgrade.
        UpstreamError: There is no response.
    """
    handshake = client.handshake()
    key = dict(handshake)[b"sec-websocket-key"]
    headers = [*_request_headers(proxy, request, upstream, opening), *handshake]
    headers.append((b"X-Request-ID", request.request_id))
    offered = request.scope.get("subprotocols") or []
    protocols = proxy.removed_keys(opening.resolved.target).protocols_without_keys(offered)
    if protocols:
        headers.append((b"Sec-WebSocket-Protocol", ", ".join(protocols).encode("latin-1")))
    response = await upstream.pool.request(
        b"GET",
        upstream.prefix + opening.target,
        headers,
        header_timeout_s=upstream.header_timeout_s,
    )
    try:
        if not response.upgraded:
            raise HandshakeRejectedError(*await _refusal_of(response, upstream.stall_s))
        expected = base64.b64encode(hashlib.sha1(key + _GUID).digest())
        if _header(response, b"sec-websocket-accept") != expected:
            raise refusal(502, "the model's server sent an invalid Sec-WebSocket-Accept")
    except BaseException:
        response.close()
        raise
    return response


def _request_headers(
    proxy: ProxyContext, request: Request, upstream: Upstream, opening: Opening
) -> list[tuple[bytes, bytes]]:
    is_keyed = not proxy.admission.keys.is_empty
    target = opening.resolved.target
    given = proxy.removed_keys(target).without_keys(request.headers)
    headers = [header for header in given if header[0] not in _NOT_FORWARDED]
    if not isinstance(target, LocalModel):
        forwarded = peer_request_headers(
            headers, host=upstream.host, api_key=target.definition.api_key,
            strips_credentials=is_keyed, mark=proxy.admission.via_token,
        )  # fmt: skip
        return [*forwarded, (b"Connection", b"Upgrade"), (b"Upgrade", b"websocket")]
    return model_request_headers(
        proxy, request, headers, upstream,
        passes_keys=target.definition.passes_keys, upgrade=b"websocket",
    )  # fmt: skip


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
        raise refusal(502, "the model's server chose a subprotocol that the client did not offer")
    return subprotocol
