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
from collections import deque
from time import perf_counter
from typing import Any

from ....runtime.fence import kept
from ...http1.asgi_types import Headers
from ...http1.client.pool import UpstreamResponse, post_head, request_id_line
from ...http1.headers import HeaderError, response_headers
from ...http1.repeated_head import RepeatedFields, RepeatedHead
from ...http1.server.request_cycle import RequestCycle
from ...http1.server.response_head import EncodedHead
from ..access.admission import Allowed
from ..accounting.request_record import CLIENT_CLOSED_REQUEST
from ..body.errors import BadBodyError
from ..body.memory_budget import BodyBudget
from ..body.model_name import model_of
from ..body.multipart import is_form
from ..context import ProxyContext
from ..models.catalog import LocalModel
from ..models.resolver import ResolvedModel
from ..request import Request, run_until_disconnect, target_of
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
        self._detached: deque[_FastRequest] = deque()
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
        context, scope = self._context, call.scope
        found = self._routes.get(scope["path"])
        if found is None:
            return False
        route, path = found
        head, cache = call.repeated_head, context.header_cache
        cached = cache.of(scope) if head is None else cache.of_repeated(head, scope)
        verdict = cached.verdicts.get(id(route))
        if type(verdict) is not Allowed or verdict.origin is not None:
            return False
        body = call.full_body
        if body is None or body[:1] != b"{" or is_form(cached.content_type):
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
        if type(local) is not LocalModel or local.edits or local.sent_model != wanted:
            return False
        if not verdict.access.allows_model(wanted, local.requested_name, local.id):
            return False
        if local.definition.id not in context.supervisor:
            return False
        upstream = context.upstreams.of_model(local.definition)
        passes_keys = local.definition.passes_keys
        lines = (cached.lines_with_keys if passes_keys else cached.lines).get(upstream.host)
        if lines is None or upstream.header_timeout_s is not None:
            return False
        request = Request(scope, call.receive, self._bodies, request_id=call.request_id)
        request.route, request.cached_headers, request.access = route, cached, verdict.access
        target = target_of(request)
        if b"?" in target:
            if AUTOLOAD in target:
                return False
            target = context.removed_keys(local).target_without_keys(target)
        lines += request_id_line(request.request_id)
        start = post_head(upstream.prefix + target, lines, body)
        conn = upstream.pool.take()
        if conn is None:
            return False
        if not context.supervisor.acquire_nowait(local.definition.id):
            upstream.pool.put_back(conn)
            return False
        response = conn.begin(start, body)
        call.take_body()
        forwarding = _FastRequest(self, call, request, resolved, path, target, body, response)
        record = forwarding.record
        record.priority, record.is_stream = local.definition.priority, is_stream
        forwarding.track(None)
        call.on_disconnect = forwarding.client_disconnected
        record.on_cancel = forwarding.fall_back
        response.set_listener(forwarding)
        return True

    def finish_soon(self, forwarding: _FastRequest) -> None:
        """Finish *forwarding* in this or the next turn of the loop, in a task of the fast path."""
        self._detached.append(forwarding)
        self._wake.set()

    def finish_all(self) -> None:
        """Finish all requests that `finish_soon` got."""
        while self._detached:
            self._detached.popleft().release_and_finish()

    async def _finish_detached(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            self.finish_all()


class PassedHead:
    """Head that the upstream repeats, as clients get it.

    Attributes:
        fields: Its fields.
        encoded: Its bytes.
    """

    __slots__ = ("encoded", "fields")

    def __init__(self, status: int, headers: Headers) -> None:
        self.fields = RepeatedFields(headers)
        self.encoded = EncodedHead(status, headers)


def _passed_head(head: RepeatedHead, response: UpstreamResponse) -> PassedHead:
    """Return *head*, that of *response*, as clients get it.

    Raises:
        HeaderError: It cannot be passed on.
    """
    passed = head.derived
    if not isinstance(passed, PassedHead):
        headers = response_headers(response.headers)
        passed = head.derived = PassedHead(response.status, headers)
    return passed


class _FastRequest(Forwarding):
    """A request on the fast path; listener of its response, as a future could be.

    It is detached as soon as it gets no more callbacks: its response was sent, its client
    disconnected, or it goes on as any other `Forwarding`.
    """

    __slots__ = ("_call", "_is_detached", "_path", "_response")

    def __init__(
        self, fast_path: FastPath, call: RequestCycle, request: Request, resolved: ResolvedModel,
        path: str, target: bytes, body: bytes, response: UpstreamResponse,
    ) -> None:  # fmt: skip
        super().__init__(fast_path._context, request, resolved, path, target, body)
        self._path, self._call, self._response = fast_path, call, response
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
            head = response.repeated_head
            try:
                if head is None:
                    self._send_response(response, response_headers(response.headers), None)
                else:
                    passed = _passed_head(head, response)
                    headers = passed.fields.with_length(b"%d" % response.bytes_received)
                    self._send_response(response, headers, passed.encoded)
            except HeaderError:
                self.fall_back()  # which responds with what is wrong
        else:
            self.fall_back()

    def _send_response(
        self, response: UpstreamResponse, headers: Headers, encoded: EncodedHead | None
    ) -> None:
        self._detach()
        self._path.finish_soon(self)  # before the next request of this client begins
        record, call = self.record, self._call
        record.headers_at = perf_counter()
        record.record_headers(headers)
        record.status = response.status
        body = response.read_nowait() or b""
        try:
            call.send_full_response(response.status, headers, body, encoded)
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

    def release_and_finish(self) -> None:
        """Release the model and record the request; in a task, since a swap may begin with it."""
        target = self.resolved.target
        assert isinstance(target, LocalModel), "only those are accepted"
        record = self.record
        try:
            try:
                release_model(self.context, self.request, target)
            finally:
                self.finish()
        except Exception:  # the other requests of `finish_all` must go on
            log.exception("%s %s could not be finished", record.method.decode(), record.path)
        finally:
            self._call.finish()
