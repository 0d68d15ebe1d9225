"""Fast path: forward a small request without a task.

A request qualifies if its model is ready, an upstream connection is idle, and its body is small and
complete. It is sent at once, and the upstream's callback sends a response that arrives in one
piece. Everything else is left to `Forwarding.run`, also in the middle: a response in pieces, a
failure, a client that does not read, a request that is cancelled.

Only requests already admitted by the regular path are accepted, so no access decision is made here,
except for the model. The fast path needs our own HTTP layer: under another ASGI server, or when a
connection is made without ``try_fast_path``, all requests take the regular path.
"""

from __future__ import annotations

import asyncio
import logging
from time import perf_counter
from typing import Any

from ....runtime.fence import kept
from ...http1.asgi_types import Headers
from ...http1.client.pool import UpstreamResponse, post_head, post_start
from ...http1.headers import HeaderError, response_headers
from ...http1.repeated_head import RepeatedFields
from ...http1.server.request_cycle import RequestCycle
from ...http1.server.response_head import EncodedHead
from ..access.admission import Allowed
from ..access.header_cache import CachedHeaders
from ..accounting.request_record import CLIENT_CLOSED_REQUEST, RequestRecord
from ..body.errors import BadBodyError
from ..body.memory_budget import BodyBudget
from ..body.model_name import model_of
from ..body.multipart import is_form
from ..context import ProxyContext
from ..models.catalog import LocalModel
from ..models.resolver import ResolvedModel
from ..options import Access
from ..request import Request, run_until_disconnect
from ..routing import Route, RouteTable
from .forwarding import Forwarding
from .model_use import release_model
from .start_rules import AUTOLOAD

log = logging.getLogger(__name__)

_SMALL_BYTES = (
    1 << 16
)  # a body that is written with its headers; larger ones may not fit the socket


class FastPath:
    """Accepts the requests that qualify for the fast path.

    Args:
        context: What all requests share.
        routes: All routes.
        bodies: Memory budget of request bodies.
    """

    def __init__(self, context: ProxyContext, routes: RouteTable, bodies: BodyBudget) -> None:
        self._context, self._bodies = context, bodies
        self._detached: list[_FastRequest] = []
        self._wake = asyncio.Event()
        context.spawn(kept(self._finish_detached))
        # A custom chart may start activities with a request, which needs a task.
        # Path -> route, and the path at the model's server. Traced requests take the regular path.
        self._routes: dict[str, tuple[Route, str]] = {
            route.path: (route, route.path[len(route.cut) :]) for route in routes.routes
            if route.method == "POST" and route.kind == "inference" and "*" not in route.path
            and not context.supervisor.has_own_chart and context.tracing is None
        }  # fmt: skip

    def try_fast_path(self, call: RequestCycle) -> bool:
        """Forward the request of *call*, which is complete; False means nothing was done."""
        context, admitted = self._context, self._admitted(call)
        body = None if admitted is None else call.full_body
        if admitted is None or body is None or body[:1] != b"{":
            return False
        if len(body) > _SMALL_BYTES or len(body) > context.options.json_limit_bytes:
            return False
        try:
            wanted, is_stream = model_of(body)
        except BadBodyError:
            return False
        resolved = context.resolver.plain(wanted)
        if resolved is None:
            return False
        local = resolved.target
        assert isinstance(local, LocalModel), "only those are plain"
        definition = local.definition
        if not admitted.access.allows_model(wanted, local.requested_name, definition.id):
            return False
        lifecycle = context.supervisor.get(definition.id)
        if lifecycle is None:
            return False
        upstream = context.upstreams.at(definition, lifecycle.endpoint)
        cached, target = admitted.cached, admitted.target
        passes_keys = definition.passes_keys
        lines = (cached.lines_with_keys if passes_keys else cached.lines).get(upstream.host)
        if lines is None or upstream.header_timeout_s is not None:
            return False
        if b"?" in target:
            target = context.removed_keys(local).target_without_keys(target)
        start = admitted.start(upstream.prefix + target, lines)
        conn = upstream.pool.take()
        if conn is None:
            return False
        if not context.supervisor.acquire_nowait(definition.id):
            upstream.pool.put_back(conn)
            return False
        response = conn.begin(post_head(start, call.request_id, body), body)
        call.take_body()
        request = admitted.request(call, self._bodies)
        forwarding = _FastRequest(self, call, admitted, request, resolved, target, body, response)
        record = forwarding.record
        record.priority, record.is_stream = definition.priority, is_stream
        forwarding.track(None)
        call.on_disconnect = forwarding.client_disconnected
        record.on_cancel = forwarding.fall_back
        response.set_listener(forwarding)
        return True

    def _admitted(self, call: RequestCycle) -> _AdmittedHead | None:
        """Return what the regular path has decided on the head of *call*; None if it has not."""
        head, cache = call.repeated_head, self._context.header_cache
        if head is not None:
            known = head.derived
            if isinstance(known, _AdmittedHead) and known.generation == cache.generation:
                return known
        scope = call.scope
        found = self._routes.get(scope["path"])
        if found is None:
            return None
        route, path = found
        cached = cache.of(scope)
        verdict = cached.verdicts.get(id(route))
        if not isinstance(verdict, Allowed) or verdict.origin is not None:
            return None
        query: bytes = scope["query_string"]
        target: bytes = scope["raw_path"].removeprefix(route.cut)
        if query:
            target += b"?" + query
        if is_form(cached.content_type) or AUTOLOAD in target:
            return None
        fields = None if head is None else RepeatedFields(scope["headers"])
        admitted = _AdmittedHead(
            cache.generation, cached, route, verdict.access, path, target, fields
        )
        if head is not None:
            head.derived = admitted
        return admitted

    def finish_soon(self, forwarding: _FastRequest) -> None:
        """Finish *forwarding* in this or the next turn of the loop, in a task of the fast path."""
        if not self._detached:
            self._wake.set()
        self._detached.append(forwarding)

    def finish_all(self) -> None:
        """Finish all requests that `finish_soon` got, step by step; see `recorder`."""
        detached, self._detached = self._detached, []
        for forwarding in detached:
            forwarding.release()
        for forwarding in detached:
            self._context.in_flight.end(forwarding.record)
        self._context.record([forwarding.record for forwarding in detached])
        for forwarding in detached:
            forwarding.forget()

    async def _finish_detached(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            self.finish_all()


class _AdmittedHead:
    """Decisions of the regular path on a head, which the client may repeat.

    Attributes:
        generation: Number of the header cache that they come from.
        cached: Decisions about its fields.
        access: What its API key allows.
        path: Path at the model's server.
        target: Path and query for the model's server.
        fields: Its fields; None unless the client has repeated it.
    """

    __slots__ = (
        "_lines", "_route", "_start", "_target", "access", "cached", "fields", "generation",
        "path", "target",
    )  # fmt: skip

    def __init__(
        self, generation: int, cached: CachedHeaders, route: Route, access: Access, path: str,
        target: bytes, fields: RepeatedFields | None,
    ) -> None:  # fmt: skip
        self.generation, self.cached, self.access = generation, cached, access
        self.path, self.target, self.fields = path, target, fields
        self._route = route
        self._target = self._lines = self._start = b""  # of the last request upstream

    def start(self, target: bytes, lines: bytes) -> bytes:
        """Return the start of a request for *target* with the headers *lines*."""
        if lines is not self._lines or target != self._target:
            self._target, self._lines = target, lines
            self._start = post_start(target, lines)
        return self._start

    def request(self, call: RequestCycle, bodies: BodyBudget) -> Request:
        """Return the request of *call*, which has this head."""
        request = Request(call.scope, call.receive, bodies, request_id=call.request_id)
        request.route, request.access, request.cached_headers = (
            self._route, self.access, self.cached,
        )  # fmt: skip
        return request


class _PassedHead:
    """Head of responses that the upstream repeats, as clients get it.

    Attributes:
        fields: Its fields.
        encoded: Its bytes.
        content_type: Value of Content-Type, b"" without one.
        content_encoding: Value of Content-Encoding, b"" without one.
    """

    __slots__ = ("content_encoding", "content_type", "encoded", "fields")

    def __init__(self, status: int, headers: Headers, record: RequestRecord) -> None:
        self.fields, self.encoded = RepeatedFields(headers), EncodedHead(status, headers)
        record.record_headers(headers)
        self.content_type, self.content_encoding = record.content_type, record.content_encoding


class _FastRequest(Forwarding):
    """A request on the fast path; listener of its response, as a future could be.

    It is detached as soon as it gets no more callbacks: its response was sent, its client
    disconnected, or it goes on as any other `Forwarding`.
    """

    __slots__ = ("_admitted", "_call", "_is_detached", "_path", "_response", "_size")

    def __init__(
        self, fast_path: FastPath, call: RequestCycle, admitted: _AdmittedHead, request: Request,
        resolved: ResolvedModel, target: bytes, body: bytes, response: UpstreamResponse,
    ) -> None:  # fmt: skip
        super().__init__(fast_path._context, request, resolved, admitted.path, target, body)
        self._path, self._call, self._admitted = fast_path, call, admitted
        self._response, self._size = response, len(body)
        self._is_detached = False
        self.record.admitted = perf_counter()
        self.record.body, self.record.is_metered = body, True

    def done(self) -> bool:
        """Return True if the request is detached."""
        return self._is_detached

    def set_result(self, _: None) -> None:
        """Send the response if all of it is here; the headers are, or the request has failed."""
        response, call = self._response, self._call
        is_short = response.bytes_received <= self.record.keep_bytes
        if response.is_complete and is_short and call.can_send_full_response:
            try:
                encoded = self._record_head(response)
            except HeaderError:
                self.fall_back()  # which responds with what is wrong
            else:
                self._send_response(response, encoded)
        else:
            self.fall_back()

    def _record_head(self, response: UpstreamResponse) -> EncodedHead | None:
        """Record the head of *response* as the client gets it; return it encoded if it is known.

        Raises:
            HeaderError: It cannot be passed on.
        """
        record, head = self.record, response.repeated_head
        record.headers_at = perf_counter()
        if head is None:
            record.record_headers(response_headers(response.headers))
            return None
        passed = head.derived
        if not isinstance(passed, _PassedHead):
            headers = response_headers(response.headers)
            passed = head.derived = _PassedHead(response.status, headers, record)
        length, sent = b"%d" % response.bytes_received, self._admitted.fields
        record.response_headers = passed.fields.with_length(length)
        record.content_type, record.content_encoding = passed.content_type, passed.content_encoding
        if sent is not None:
            record.packed_headers = sent.packed(b"%d" % self._size), passed.fields.packed(length)
        return passed.encoded

    def _send_response(self, response: UpstreamResponse, encoded: EncodedHead | None) -> None:
        self._detach()
        self._path.finish_soon(self)  # before the next request of this client begins
        record, call = self.record, self._call
        record.status = response.status
        body = response.read_nowait() or b""
        try:
            call.send_full_response(response.status, record.response_headers, body, encoded)
        except Exception as error:
            log.exception("%s %s failed", record.method.decode(), record.path)
            record.code, record.error = "broken", str(error)
            call.fail()
        else:
            record.record_full_body(body)

    def fall_back(self) -> None:
        """Go on in a task: the response is not here yet, or failed, or the request is cancelled."""
        if self._is_detached:  # it has a task already, which is cancelled
            return
        self._detach()
        self._call.on_disconnect = None
        self.pending_response = self._response
        self._call.run_in_task(self._go_on)

    async def _go_on(self, scope: Any, receive: Any, send: Any) -> None:
        self.request.use_extensions(scope["extensions"])
        await run_until_disconnect(self.request, self.run(send))

    def client_disconnected(self) -> None:
        """Give up; the record gets status 499."""
        if self._is_detached:
            return
        self._detach()
        self._response.close()
        self.record.end_early(CLIENT_CLOSED_REQUEST, "client_left", "the client disconnected")
        self._path.finish_soon(self)

    def _detach(self) -> None:
        self._is_detached = True
        self._response.set_listener(None)

    def release(self) -> None:
        """Release the model; in a task, since a swap may begin with it."""
        target, record = self.resolved.target, self.record
        assert isinstance(target, LocalModel), "only those are accepted"
        try:
            release_model(self.context, self.request, target)
        except Exception:  # the other requests of `finish_all` must go on
            log.exception("%s %s could not be finished", record.method.decode(), record.path)

    def forget(self) -> None:
        """Let the server forget the request, which is recorded."""
        self._call.finish()
