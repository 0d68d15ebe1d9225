"""The way of a request to a model: make it ready, relay, release; every outcome is answered.

For a ready model it is short on purpose: a few dictionary look-ups, one step of the chart, one
exchange with the upstream. Nothing is logged or stored on it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from ....runtime import RequestError
from ...http1.asgi_types import Headers, Send
from ...http1.client.pool import UpstreamError, UpstreamResponse, UpstreamTimeout, field_lines
from ...http1.headers import HeaderError, request_headers
from ..access.api_keys import NOT_PASSED_ON
from ..accounting.request_record import RequestRecord
from ..body.errors import BadBodyError, BodyTooLargeError
from ..context import ProxyContext
from ..models.catalog import LocalModel, PeerModel
from ..models.resolver import ResolvedModel
from ..request import Request, RequestAbortedError
from ..responses import send_error
from ..upstreams import Upstream
from .loading_stream import LoadingStream
from .peer_headers import peer_fields
from .relay import relay, relay_answer
from .stream_formats import STREAM_FORMATS

log = logging.getLogger(__name__)

_MOST_HOSTS = 16  # upstreams for which the fields of one head are kept
_NOTHING: frozenset[bytes] = frozenset()
CLIENT_CLOSED_REQUEST = 499
"""Status of a request whose client left, as nginx has it."""


def new_record(request: Request, resolved: ResolvedModel, path: str) -> RequestRecord:
    """Return the record of a request for the model behind *resolved*.

    Args:
        request: As it came.
        resolved: What it is for.
        path: Its path at the model's server, without anything put before.
    """
    exchange = RequestRecord(request, resolved.target.id, path, perf_counter())
    if resolved.selector is not None:
        exchange.selector = resolved.selector.id
    return exchange


@dataclass(slots=True)
class OutgoingRequest:
    """What goes to the model's server.

    Attributes:
        target: Path and query.
        body: The body: whole, in pieces, or none.
        length: Of a body in pieces, in bytes, where it is not what the request announced.
        is_plain: The answer must not be compressed.
    """

    target: bytes
    body: bytes | AsyncIterator[bytes] | None = None
    length: int | None = None
    is_plain: bool = False


async def forward(
    proxy: ProxyContext,
    request: Request,
    send: Send,
    exchange: RequestRecord,
    resolved: ResolvedModel,
    sending: OutgoingRequest,
    *,
    held: UpstreamResponse | None = None,
) -> None:
    """Make the model ready, relay, release; every outcome is answered.

    Args:
        proxy: What all share.
        request: As it came.
        send: Where the answer goes.
        exchange: Of `new_record`; filled in on the way.
        resolved: What it is for; its reservation is released.
        sending: What goes on.
        held: The answer, of which the head is here or will not come: its model is held, and the
            request is in flight.
    """
    if b"?" in sending.target:
        sending.target = proxy.admission.ring.target_without_keys(sending.target)
    task = asyncio.current_task()
    if held is None:
        track(proxy, exchange, task)
    else:
        proxy.in_flight.go_on(exchange, task)
    request.watch(task)
    try:
        target = resolved.target
        if isinstance(target, PeerModel):
            await _serve_remote(proxy, request, send, exchange, target, sending)
        elif held is not None or proxy.supervisor.acquire_nowait(target.card.id):
            exchange.priority = target.card.priority
            await _forward_to_ready(proxy, request, send, exchange, target, sending, held)
        else:
            await _serve_waiting(proxy, request, send, exchange, target, sending)
    except RequestError as error:
        exchange.status, exchange.error, exchange.code = error.status_hint, str(error), error.code
        await send_refused(proxy, request, send, error)
    except (HeaderError, BadBodyError, BodyTooLargeError, UpstreamError) as error:
        await _failed(request, send, exchange, error)
    except RequestAbortedError:
        exchange.code = "client_left"
        exchange.status = exchange.status or CLIENT_CLOSED_REQUEST
        raise
    except asyncio.CancelledError:
        if not exchange.cancelled_by or request.is_gone:
            exchange.code = "client_left" if request.is_gone else "shutting_down"
            exchange.status = exchange.status or CLIENT_CLOSED_REQUEST
            raise
        await _cancelled(request, send, exchange)
    finally:
        finish(proxy, exchange, resolved)


def track(proxy: ProxyContext, exchange: RequestRecord, task: asyncio.Task[object] | None) -> None:
    """Note that a request is in flight, served by *task*; pair with `finish`."""
    proxy.in_flight.begin(exchange, task)
    exchange.keep_bytes = proxy.accounting.capture_limit(len(proxy.in_flight.open))


def finish(proxy: ProxyContext, exchange: RequestRecord, resolved: ResolvedModel) -> None:
    """Note that a request is over, and write it down."""
    exchange.ended = perf_counter()
    proxy.in_flight.end(exchange)
    if resolved.reservation is not None:
        resolved.reservation.release()
    try:
        proxy.accounting.recorder.take(exchange)
    except Exception:
        log.exception("a request to %s could not be recorded", exchange.model)
    if proxy.on_finished is None:
        return
    try:
        proxy.on_finished(exchange)
    except Exception:
        log.exception("nothing is learnt from a response of %s", exchange.model)


async def _serve_waiting(
    proxy: ProxyContext, request: Request, send: Send, exchange: RequestRecord, local: LocalModel,
    sending: OutgoingRequest,
) -> None:  # fmt: skip
    card = local.card
    exchange.priority = card.priority
    if card.sends_loading_state and exchange.is_stream and exchange.path in STREAM_FORMATS:
        await _serve_announced(proxy, request, send, exchange, local, sending)
        return
    client = request.access.client
    await proxy.supervisor.acquire(card.id, priority=card.priority, client=client)
    await _forward_to_ready(proxy, request, send, exchange, local, sending)


async def _serve_announced(
    proxy: ProxyContext, request: Request, send: Send, exchange: RequestRecord, local: LocalModel,
    sending: OutgoingRequest,
) -> None:  # fmt: skip
    """As `_serve_waiting`, and tell the client meanwhile that its model is coming up."""
    request.send_full_response = None  # the answer is the end of what has begun here
    shows = proxy.view(request.access).text
    announcer = LoadingStream(
        proxy.supervisor, send, exchange, local.wanted, shows, proxy.options.loading_tick_s
    )
    try:
        await announcer.acquire(local.card.priority, request.access.client)
        sending.is_plain = announcer.has_begun
        await _forward_to_ready(proxy, request, announcer.pass_on, exchange, local, sending)
    except (RequestError, UpstreamError, HeaderError) as error:
        if not await announcer.fail(error):
            raise
    except asyncio.CancelledError:
        if not exchange.cancelled_by or request.is_gone or not announcer.has_begun:
            raise
        _uncancel()
        exchange.code = "request_cancelled"
        broken = ResponseAbortedError(f"cancelled by {exchange.cancelled_by}")
        if not await announcer.fail(broken):
            raise broken from None


async def _forward_to_ready(
    proxy: ProxyContext, request: Request, send: Send, exchange: RequestRecord, local: LocalModel,
    sending: OutgoingRequest, held: UpstreamResponse | None = None,
) -> None:  # fmt: skip
    """Relay a request to a model that is held ready, or what is left of *held*; release it.

    A request that was not even sent, since its connection ended before, goes over another one.
    """
    card, supervisor = local.card, proxy.supervisor
    try:
        if held is not None:
            if exchange.cancelled_by:
                held.close()
                raise asyncio.CancelledError
            if not held.may_send_again:
                await _resume_relay(proxy, request, send, exchange, local, held)
                return
        exchange.admitted = perf_counter()
        upstream = proxy.upstreams.of_model(card)
        fields = _lines(proxy, request, upstream, sending)
        await relay(
            send,
            upstream,
            sending.target,
            fields,
            sending.body,
            exchange,
            request.send_full_response,
        )
    except UpstreamTimeout:
        if exchange.status and card.id in supervisor:
            supervisor[card.id].note_stall()
        raise
    finally:
        supervisor.release(card.id)


async def _resume_relay(
    proxy: ProxyContext, request: Request, send: Send, exchange: RequestRecord, local: LocalModel,
    held: UpstreamResponse,
) -> None:  # fmt: skip
    """Relay what is left of an answer that came by the short way."""
    try:
        held.raise_if_failed()
        upstream = proxy.upstreams.of_model(local.card)
        await relay_answer(send, upstream, held, exchange, request.send_full_response)
    finally:
        held.close()


async def _serve_remote(
    proxy: ProxyContext, request: Request, send: Send, exchange: RequestRecord, remote: PeerModel,
    sending: OutgoingRequest,
) -> None:  # fmt: skip
    exchange.admitted = exchange.started
    upstream = proxy.upstreams.of_peer(remote.card)
    fields = peer_fields(
        _headers(proxy, request, sending),
        host=upstream.host,
        api_key=remote.card.api_key,
        strips_credentials=not proxy.admission.ring.is_empty,
        mark=proxy.admission.mark,
    )
    await relay(send, upstream, sending.target, fields, sending.body, exchange)


def _lines(
    proxy: ProxyContext, request: Request, upstream: Upstream, sending: OutgoingRequest
) -> Headers | bytes:
    """As `_fields`; where they are to go as they came, what was written of them before."""
    head, body = request.head, sending.body
    is_whole = body is None or isinstance(body, bytes)
    if head is None or not is_whole or sending.is_plain or sending.length is not None:
        return _fields(proxy, request, upstream, sending)
    known = head.lines.get(upstream.host)
    if known is None:
        if len(head.lines) >= _MOST_HOSTS:
            head.lines.clear()
        known = head.lines[upstream.host] = field_lines(_fields(proxy, request, upstream, sending))
    return known


def _fields(
    proxy: ProxyContext, request: Request, upstream: Upstream, sending: OutgoingRequest
) -> Headers:
    """Return what of the request's fields goes to the server of a model of ours."""
    client = request.client
    return request_headers(
        _headers(proxy, request, sending),
        host=request.header(b"host") or upstream.host,
        client=None if client is None else client.encode(),
        strip=_NOTHING if proxy.admission.ring.is_empty else NOT_PASSED_ON,
        trust_forwarded=proxy.trusts(client),
    )


def _headers(proxy: ProxyContext, request: Request, sending: OutgoingRequest) -> Headers:
    headers = proxy.admission.ring.without_keys(request.headers)
    if sending.is_plain:
        headers = [field for field in headers if field[0] != b"accept-encoding"]
    if sending.length is None:
        return headers
    kept = [field for field in headers if field[0] != b"content-length"]
    return [*kept, (b"content-length", b"%d" % sending.length)]


# ---- outcomes
async def _failed(
    request: Request, send: Send, exchange: RequestRecord,
    error: HeaderError | BadBodyError | BodyTooLargeError | UpstreamError,
) -> None:  # fmt: skip
    exchange.error = str(error)
    if exchange.status:
        log.warning("%s broke off after %d bytes: %s", exchange.model, exchange.sent_bytes, error)
        exchange.code = "broken"
        raise ResponseAbortedError(exchange.error) from error
    if isinstance(error, UpstreamError):
        exchange.status, exchange.code = error.status_hint, f"upstream_{error.stage}"
        message = f"the server of {exchange.model} failed: {error}"
        await send_error(request, send, exchange.status, message, code=exchange.code)
        return
    exchange.status = 413 if isinstance(error, BodyTooLargeError) else 400
    exchange.code = "bad_request"
    await send_error(
        request, send, exchange.status, str(error), headers=[(b"connection", b"close")]
    )


async def _cancelled(request: Request, send: Send, exchange: RequestRecord) -> None:
    """Answer one that was cancelled by somebody else than its client."""
    _uncancel()
    exchange.code, exchange.error = "request_cancelled", f"cancelled by {exchange.cancelled_by}"
    if exchange.status:
        raise ResponseAbortedError(exchange.error)
    exchange.status = CLIENT_CLOSED_REQUEST
    await send_error(request, send, CLIENT_CLOSED_REQUEST, exchange.error, code=exchange.code)


def _uncancel() -> None:
    task = asyncio.current_task()
    assert task is not None, "in a task"
    task.uncancel()


class ResponseAbortedError(Exception):
    """An answer ends in the middle: raised to the server, which must not end it cleanly."""


async def send_refused(
    proxy: ProxyContext, request: Request, send: Send, error: RequestError
) -> None:  # fmt: skip
    """Say why a request was not admitted; what the model printed is for administrators."""
    is_admin = "admin" in request.access.scopes
    details: dict[str, Any] = {"log": list(error.log_tail)} if error.log_tail and is_admin else {}
    message = proxy.view(request.access).text(str(error))
    await send_error(
        request, send, error.status_hint, message, code=error.code,
        retry_after_s=error.retry_after_s, details=details,
    )  # fmt: skip
