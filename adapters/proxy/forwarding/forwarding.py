"""Forwarding of one request: acquire its model, send it upstream, relay the response, finish.

`checks.CHECKS` lists what a request passes before. A handler of `api` then makes one `Forwarding`,
which holds all that belongs to the request until it is recorded. Three invariants:

- Every outcome gets a response or, once the response has begun, aborts the client's connection.
- The model and the reservation behind a selector are released exactly once.
- The request is recorded exactly once.

Nothing is logged or stored before `Forwarding.finish`. Chunks are passed on as they arrive: a slow
client slows the upstream, and memory stays bounded.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from time import perf_counter

from ....runtime import RequestError
from ...http1.asgi_types import Headers, Send
from ...http1.client.pool import (
    UpstreamBroken,
    UpstreamError,
    UpstreamResponse,
    field_lines,
    request_id_line,
)
from ...http1.headers import HeaderError, response_headers
from ...system.log_facts import request_fact
from ..accounting.request_record import CLIENT_CLOSED_REQUEST, RequestRecord
from ..body.errors import BadBodyError, BodyTooLargeError
from ..context import ProxyContext
from ..models.catalog import LocalModel, PeerModel
from ..models.resolver import ResolvedModel
from ..request import Request, RequestAbortedError
from ..upstreams import Upstream
from .body_relay import BodyRelay
from .failures import error_text, rejection_fields, send_recorded_error, status_of
from .loading_stream import LoadingStream
from .model_use import note_failure, release_model
from .repeated_request import starting_once
from .start_rules import AUTOLOAD, NOT_LOADED, split_autoload, why_not_start
from .stream_formats import STREAM_FORMATS
from .upstream_headers import (
    client_headers,
    model_request_headers,
    peer_request_headers,
    traced_headers,
)  # fmt: skip

log = logging.getLogger(__name__)


class ResponseAbortedError(Exception):
    """The response ends before its end: the server must abort the client's connection."""


class Forwarding:
    """One request on its way to a model.

    Attributes:
        context: What all requests share.
        request: As the client sent it.
        resolved: The model it is for.
        record: What is recorded about it.
        target: Path and query for the upstream, without the upstream's prefix.
        autoload: Whether the client lets the request start its model; None if it does not say.
        body: Complete, in pieces, or None.
        length: Length of a body in pieces, in bytes, where it is not what the client announced.
        is_uncompressed: The response must not be compressed, since it continues a stream.
        pending_response: Response of a request that the fast path has sent: the model is acquired,
            and the headers of the response have arrived or will not.
        respond: Sends an ASGI message to the client; set by `run`.
    """

    __slots__ = (
        "autoload", "body", "context", "is_uncompressed", "length", "pending_response", "record",
        "request", "resolved", "respond", "target",
    )  # fmt: skip

    def __init__(
        self, context: ProxyContext, request: Request, resolved: ResolvedModel, path: str,
        target: bytes, body: bytes | AsyncIterator[bytes] | None = None,
    ) -> None:  # fmt: skip
        """Begin the record of *request*, with *path* as its path at the model's server."""
        self.context, self.request, self.resolved = context, request, resolved
        self.target, self.body = target, body
        self.autoload: bool | None = None
        self.length: int | None = None
        self.is_uncompressed = False
        self.pending_response: UpstreamResponse | None = None
        self.respond: Send
        self.record = RequestRecord(request, resolved.target.recorded_name, path, perf_counter())
        if resolved.selector is not None:
            self.record.selector = resolved.selector.id

    async def run(self, respond: Send) -> None:
        """Acquire, send, relay and finish; respond to every failure that still can be.

        Raises:
            ResponseAbortedError: The response has begun and cannot be completed.
            RequestAbortedError: The client disconnected.
        """
        self.respond = respond
        request, record, target = self.request, self.record, self.resolved.target
        supervisor = self.context.supervisor
        task = asyncio.current_task()
        if self.pending_response is None:
            if b"?" in self.target:
                self.target = self.context.removed_keys(target).target_without_keys(self.target)
            self.track(task)
        else:
            self.context.in_flight.go_on(record, task)
        request.watch(task)
        try:
            if AUTOLOAD in self.target and not isinstance(target, PeerModel):
                self.target, self.autoload = split_autoload(self.target)
            if isinstance(target, PeerModel):
                await self._run_at_peer(target)
            elif self.pending_response is not None or supervisor.acquire_nowait(
                target.definition.id
            ):
                record.priority = target.definition.priority
                await self._send_and_relay(target)
            else:
                record.priority = target.definition.priority
                await self._run_waiting(target)
        except RequestError as error:
            record.status, record.error, record.code = error.status_hint, str(error), error.code
            await self._send_rejection(error)
        except (HeaderError, BadBodyError, BodyTooLargeError, UpstreamError) as error:
            await self._send_failure(error)
        except (RequestAbortedError, ConnectionError):  # since ASGI 2.4 `send` may raise the latter
            record.end_early(CLIENT_CLOSED_REQUEST, "client_left", "the client disconnected")
            raise
        except asyncio.CancelledError:
            if request.is_gone:
                record.end_early(CLIENT_CLOSED_REQUEST, "client_left", "the client disconnected")
                raise
            if not record.cancelled_by:
                record.end_early(503, "shutting_down", "cut off by the shutdown")
                raise
            await self._send_cancellation()
        finally:
            self.finish()

    # ---- the four steps
    async def acquire(self, local: LocalModel) -> None:
        """Wait until *local* is ready and admits the request; pair with ``Supervisor.release``.

        Raises:
            RequestError: The scheduler rejects the request, or the model does not become ready.
        """
        await self.context.supervisor.acquire(
            local.definition.id,
            priority=local.definition.priority,
            client=self.request.access.client,
            wait=self.record.begin_wait(),
        )

    async def send(self, upstream: Upstream, headers: Headers | bytes) -> UpstreamResponse:
        """Send the request; return the response as soon as its headers are here.

        Args:
            upstream: Where to.
            headers: Without hop-by-hop headers and the id; or their lines, see
                ``pool.field_lines``.

        Raises:
            UpstreamError: There is no response.
        """
        request_id = self.request.request_id
        if self.context.tracing is not None:
            headers = traced_headers(self.context.tracing, self.record, upstream, headers)
        if isinstance(headers, bytes):
            headers += request_id_line(request_id)
        else:
            headers = [*headers, (b"X-Request-ID", request_id)]
        return await upstream.pool.request(
            self.record.method, upstream.prefix + self.target, headers, self.body,
            header_timeout_s=upstream.header_timeout_s,
        )  # fmt: skip

    async def relay(self, upstream: Upstream, response: UpstreamResponse) -> None:
        """Pass *response* on to the client, each chunk as it arrives.

        Raises:
            UpstreamError: Nothing was sent to the client yet if the status of the record is 0, else
                the response was cut off.
        """
        record, respond = self.record, self.respond
        try:
            record.headers_at = perf_counter()
            headers = _response_headers(response)
            record.record_headers(headers)
            piece = response.read_nowait()
            record.status = response.status
            send_full = self.request.send_full_response
            if (
                send_full is not None and piece is not None and response.at_end
                and len(piece) <= record.keep_bytes and send_full(response.status, headers, piece)
            ):  # fmt: skip
                record.record_full_body(piece)
                return
            await respond(
                {"type": "http.response.start", "status": response.status, "headers": headers}
            )
            write = self.request.write_body
            pieces = None if write is None else BodyRelay(record, response, write)
            is_more = True
            while is_more:
                if piece is None and pieces is not None:
                    piece = await pieces.run(upstream.stall_s)
                if piece is None:
                    piece = await response.read(timeout_s=upstream.stall_s)
                if piece:
                    record.record_piece(piece)
                is_more = not response.at_end
                await respond({"type": "http.response.body", "body": piece, "more_body": is_more})
                piece = response.read_nowait() if is_more else None
        finally:
            response.close()

    def track(self, task: asyncio.Task[object] | None) -> None:
        """Add the request to those in flight, served by *task*; pair with `finish`."""
        context, record = self.context, self.record
        context.in_flight.begin(record, task)
        record.keep_bytes = context.accounting.capture_limit(len(context.in_flight.open))

    def finish(self) -> None:
        """Remove the request from those in flight, and record it."""
        self.context.in_flight.end(self.record)
        if self.resolved.reservation is not None:
            self.resolved.reservation.release()
        self.context.record([self.record])

    # ---- the ways through them
    async def _send_and_relay(self, local: LocalModel) -> None:
        """Send to a model that is acquired, or go on with what was sent; then release it."""
        context, record, response = self.context, self.record, self.pending_response
        try:
            if response is not None and record.cancelled_by:
                response.close()
                raise asyncio.CancelledError
            if local.definition.has_library and response is None and context.send_in_slot:
                await context.send_in_slot(self, local)
                return
            if response is None or response.may_send_again:
                record.admitted = perf_counter()
                upstream = context.upstreams.of_model(local.definition)
                response = await self.send(upstream, self.header_lines(local, upstream))
            else:
                try:
                    response.raise_if_failed()
                    upstream = context.upstreams.of_model(local.definition)
                except BaseException:
                    response.close()
                    raise
            await self.relay(upstream, response)
        except UpstreamError as error:
            note_failure(context, local, error)
            raise
        finally:
            release_model(context, self.request, local)

    async def _run_waiting(self, local: LocalModel) -> None:
        """Acquire a model that is not ready, or is busy; then send and relay."""
        record = self.record
        rule = self.context.options.start_on_get
        why_not = why_not_start(self.request, self.autoload, record.path, rule)
        if why_not:
            await _acquire_loaded(self, local, why_not)
            await self._send_and_relay(local)
        elif (
            local.definition.sends_loading_state
            and record.is_stream
            and record.path in STREAM_FORMATS
        ):
            await self._run_with_loading_stream(local)
        else:
            async with starting_once(self.context, record, self.target, self.body):
                await self.acquire(local)
            await self._send_and_relay(local)

    async def _run_with_loading_stream(self, local: LocalModel) -> None:
        """Acquire, send and relay, and tell the client the state of its model in the meantime."""
        request, record, context = self.request, self.record, self.context
        request.send_in_messages()  # the response continues what begins here
        loading = LoadingStream(
            context.supervisor, self.respond, record, local.requested_name,
            context.view(request.access).text, context.options.loading_tick_s,
        )  # fmt: skip
        try:
            async with starting_once(context, record, self.target, self.body):
                await loading.acquire(local.definition.priority, request.access.client)
            self.is_uncompressed = loading.has_begun
            self.respond = loading.pass_on
            await self._send_and_relay(local)
        except (RequestError, UpstreamError, HeaderError) as error:
            if not await loading.fail(error, error_text(error, request.access)):
                raise
            if isinstance(error, RequestError):
                _log_rejection(self, error)
        except asyncio.CancelledError:
            if not record.cancelled_by or request.is_gone or not loading.has_begun:
                raise
            _uncancel()
            aborted = ResponseAbortedError(f"cancelled by {record.cancelled_by}")
            record.code = "request_cancelled"
            is_told = await loading.fail(aborted, str(aborted))
            record.status, record.error = CLIENT_CLOSED_REQUEST, str(aborted)
            if not is_told:
                raise aborted from None

    async def _run_at_peer(self, peer: PeerModel) -> None:
        """Send to a peer, which acquires the model itself, and relay."""
        context, record = self.context, self.record
        record.admitted = record.started
        self.request.send_full_response = None
        upstream = context.upstreams.of_peer(peer.definition)
        headers = peer_request_headers(
            self._client_headers(),
            host=upstream.host,
            api_key=peer.definition.api_key,
            strips_credentials=not context.admission.keys.is_empty,
            mark=context.admission.via_token,
        )
        await self.relay(upstream, await self.send(upstream, headers))

    # ---- request headers
    def header_lines(self, local: LocalModel, upstream: Upstream) -> Headers | bytes:
        """Return the headers for *upstream*; cached as bytes for requests with the same ones."""
        cached, body = self.request.cached_headers, self.body
        is_complete = body is None or isinstance(body, bytes)
        if cached is None or not is_complete or self.is_uncompressed or self.length is not None:
            return self._model_headers(local, upstream)
        passes_keys = local.definition.passes_keys
        lines = (cached.lines_with_keys if passes_keys else cached.lines).get(upstream.host)
        if lines is None:
            lines = field_lines(self._model_headers(local, upstream))
            cached.add_lines(upstream.host, lines, passes_keys=passes_keys)
        return lines

    def _model_headers(self, local: LocalModel, upstream: Upstream) -> Headers:
        given, keys = self._client_headers(), local.definition.passes_keys
        return model_request_headers(self.context, self.request, given, upstream, passes_keys=keys)

    def _client_headers(self) -> Headers:
        context, target = self.context, self.resolved.target
        return client_headers(context, self.request, target, self.length, self.is_uncompressed)

    # ---- responses to failures
    async def _send_rejection(self, error: RequestError) -> None:
        """Respond to a rejected request; only administrators get the model's output."""
        access = self.request.access
        _log_rejection(self, error)
        text = self.context.view(access).text(error_text(error, access))
        more = rejection_fields(error, access)
        await send_recorded_error(self.record, self.respond, error.status_hint, text, **more)

    async def _send_failure(
        self, error: HeaderError | BadBodyError | BodyTooLargeError | UpstreamError
    ) -> None:
        record, respond = self.record, self.respond
        record.error = str(error)
        if record.status:
            log.warning(
                "response of %s aborted after %d bytes: %s", record.model, record.sent_bytes, error,
                extra=request_fact(self.request.request_id),
            )  # fmt: skip
            record.status, record.code = status_of(error), "broken"
            raise ResponseAbortedError(record.error) from error
        record.status = status_of(error)
        if isinstance(error, UpstreamError):
            record.code = f"upstream_{error.stage}"
            message = f"the server of {record.model} failed: {error}"
            await send_recorded_error(record, respond, record.status, message, code=record.code)
            return
        record.code = "bad_request"
        close = [(b"connection", b"close")]
        await send_recorded_error(record, respond, record.status, record.error, headers=close)

    async def _send_cancellation(self) -> None:
        """Respond to a request that was cancelled through the API."""
        _uncancel()
        record = self.record
        record.code, record.error = "request_cancelled", f"cancelled by {record.cancelled_by}"
        has_begun, record.status = record.status != 0, CLIENT_CLOSED_REQUEST
        if has_begun:
            raise ResponseAbortedError(record.error)
        await send_recorded_error(
            record, self.respond, record.status, record.error, code=record.code
        )


async def _acquire_loaded(forwarding: Forwarding, local: LocalModel, why_not: str) -> None:
    """Acquire *local*, which must not be started, for the reason *why_not*."""
    supervisor, client = forwarding.context.supervisor, forwarding.request.access.client
    name, priority = local.definition.id, local.definition.priority
    try:
        await supervisor.acquire(
            name, priority=priority, client=client, may_start=False,
            wait=forwarding.record.begin_wait(),
        )  # fmt: skip
    except RequestError as error:
        if error.code != NOT_LOADED:
            raise
        raise RequestError(NOT_LOADED, f"{error}: {why_not}", can_retry=False) from error


def _log_rejection(forwarding: Forwarding, error: RequestError) -> None:
    if error.code == NOT_LOADED:  # the client asked for that, such as one that polls
        return
    model, request_id = forwarding.record.model, forwarding.request.request_id
    text = f"{model}: {error}"
    forwarding.context.rejections.write(error.code, text, request_id=request_id, model=model)


def _uncancel() -> None:
    task = asyncio.current_task()
    assert task is not None, "in a task"
    task.uncancel()


def _response_headers(response: UpstreamResponse) -> Headers:
    try:
        return response_headers(response.headers)
    except HeaderError as error:
        raise UpstreamBroken("head", str(error)) from error
