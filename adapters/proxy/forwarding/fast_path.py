"""The short way of a request: its model is ready, a connection is idle, its body is small and here.

Under our own HTTP layer such a request needs no task and no messages: it goes on at once, and its
answer, if it comes in one piece, is passed on by the upstream's own callback. Everything else is
left to `dispatch.serve`, also in the middle: an answer in pieces, one that fails, a client that
does not read, a request that is cancelled.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from time import perf_counter
from typing import Any

from ....runtime.fence import kept
from ...http1.client.pool import UpstreamResponse, post_head
from ...http1.headers import HeaderError, response_headers
from ...http1.server.request_cycle import RequestCycle as Call
from ..access.admission import Allowed
from ..accounting.request_record import RequestRecord
from ..body.errors import BadBodyError
from ..body.memory_budget import BodyBudget
from ..body.model_name import model_of
from ..body.multipart import is_form
from ..context import ProxyContext
from ..models.catalog import LocalModel
from ..models.resolver import ResolvedModel
from ..request import Request, run_until_disconnect, target_of
from ..routing import Route, RouteTable
from .forward import CLIENT_CLOSED_REQUEST, OutgoingRequest, finish, forward, new_record, track

log = logging.getLogger(__name__)

_SMALL_BYTES = 1 << 16  # of a body that is written with the head; larger ones wait for the kernel


class FastPath:
    """Takes the requests that can go the short way.

    Args:
        proxy: What handlers share.
        routes: All routes.
        bodies: Memory that bodies of requests take.

    Attributes:
        proxy: See above.
    """

    def __init__(self, proxy: ProxyContext, routes: RouteTable, bodies: BodyBudget) -> None:
        self.proxy, self._bodies = proxy, bodies
        self._landed: deque[_FastRequest] = deque()
        self._wake = asyncio.Event()
        proxy.spawn(kept(self._end_them))
        # A chart of somebody's own may start activities with a request, for which it takes a task.
        self._routes: dict[str, Route] = {
            route.path: route for route in routes.routes
            if route.method == "POST" and route.kind == "inference" and "*" not in route.path
            and not proxy.supervisor.has_own_chart
        }  # fmt: skip

    def try_fast_path(self, call: Call) -> bool:
        """Take *call*, whose whole request is here; False: nothing was done, it goes the long way.

        Nothing is decided here for the first time: the long way has let such a head pass before.
        """
        proxy, scope = self.proxy, call.scope
        route = self._routes.get(scope["path"])
        if route is None:
            return False
        head = proxy.header_cache.of(scope)
        verdict = head.verdicts.get(id(route))
        if type(verdict) is not Allowed or verdict.origin is not None:
            return False
        body, kind = call.full_body, head.content_type
        if body is None or body[:1] != b"{" or len(body) > _SMALL_BYTES:
            return False
        if len(body) > proxy.options.json_limit_bytes:
            return False
        if is_form(kind):
            return False
        try:
            wanted, is_stream = model_of(body)
        except BadBodyError:
            return False
        resolved = proxy.resolver.plain(wanted)
        if resolved is None:
            return False
        local = resolved.target
        if type(local) is not LocalModel or local.edits or local.sent_model != wanted:
            return False
        if not verdict.access.allows_model(wanted, local.wanted, local.id):
            return False
        if local.card.id not in proxy.supervisor:
            return False
        upstream = proxy.upstreams.of_model(local.card)
        lines = head.lines.get(upstream.host)
        if lines is None or upstream.header_timeout_s is not None:
            return False
        request = Request(scope, call.receive, self._bodies)
        request.route, request.head, request.access = route, head, verdict.access
        target = target_of(request)
        if b"?" in target:
            target = proxy.admission.ring.target_without_keys(target)
        start = post_head(upstream.prefix + target, lines, body)
        conn = upstream.pool.take()
        if conn is None:
            return False
        if not proxy.supervisor.acquire_nowait(local.card.id):
            upstream.pool.put_back(conn)
            return False
        response = conn.begin(start, body)
        call.take_body()
        exchange = new_record(request, resolved, request.path)
        exchange.admitted = perf_counter()
        exchange.body, exchange.priority = body, local.card.priority
        exchange.is_metered, exchange.is_stream = True, is_stream
        track(proxy, exchange, None)
        flight = _FastRequest(self, call, request, exchange, resolved, response)
        call.on_disconnect = flight.leave
        exchange.on_cancel = flight.hand_over
        response.set_listener(flight)
        return True

    def end_soon(self, flight: _FastRequest) -> None:
        """End *flight* in a moment, in a task of ours."""
        self._landed.append(flight)
        self._wake.set()

    def end_all(self) -> None:
        """End all flights that have landed."""
        while self._landed:
            self._landed.popleft().end()

    async def _end_them(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            self.end_all()


class _FastRequest:
    """One request on the short way, waiting for its answer; told of it as a future would be."""

    __slots__ = ("_call", "_exchange", "_is_over", "_lane", "_request", "_resolved", "_response")

    def __init__(
        self,
        lane: FastPath,
        call: Call,
        request: Request,
        exchange: RequestRecord,
        resolved: ResolvedModel,
        response: UpstreamResponse,
    ) -> None:
        self._lane, self._call, self._request = lane, call, request
        self._exchange, self._resolved, self._response = exchange, resolved, response
        self._is_over = False

    def done(self) -> bool:
        """Tell whether it is on the short way no longer."""
        return self._is_over

    def set_result(self, _: None) -> None:
        """The head of the answer is here, or all of it, or there is none."""
        response, call = self._response, self._call
        is_short = response.bytes_received <= self._exchange.keep_bytes
        if response.is_complete and is_short and call.can_send_full_response:
            try:
                headers = response_headers(response.headers)
            except HeaderError:
                self.hand_over()  # which says what is wrong
            else:
                self._answer(response, headers)
        else:
            self.hand_over()

    def _answer(self, response: UpstreamResponse, headers: list[tuple[bytes, bytes]]) -> None:
        self._detach()
        self._lane.end_soon(self)  # asked for first: before the next request of this client begins
        exchange, call = self._exchange, self._call
        exchange.head = perf_counter()
        exchange.note_fields(headers)
        exchange.status = response.status
        piece = response.read_nowait() or b""
        try:
            call.send_full_response(response.status, headers, piece)
        except Exception as error:
            log.exception("%s %s failed", exchange.method.decode(), exchange.path)
            exchange.code, exchange.error = "broken", str(error)
            call.fail()
        else:
            exchange.record_full_body(piece)

    def hand_over(self) -> None:
        """Go on by the long way: an answer that takes longer, or none, or a cancellation."""
        if self._is_over:  # it does so already, and sees by itself that it is cancelled
            return
        self._detach()
        self._call.on_disconnect = None
        self._call.run_in_task(self._go_on)

    async def _go_on(self, scope: Any, receive: Any, send: Any) -> None:
        work = forward(
            self._lane.proxy, self._request, send, self._exchange, self._resolved,
            OutgoingRequest(target_of(self._request), self._exchange.body), held=self._response,
        )  # fmt: skip
        await run_until_disconnect(self._request, work)

    def leave(self) -> None:
        """The client has left."""
        if self._is_over:
            return
        self._detach()
        self._response.close()
        self._exchange.code, self._exchange.status = "client_left", CLIENT_CLOSED_REQUEST
        self._lane.end_soon(self)

    def _detach(self) -> None:
        self._is_over = True
        self._response.set_listener(None)

    def end(self) -> None:
        """Let the model go, and write the request down; in a task: a swap may begin with it."""
        target = self._resolved.target
        assert isinstance(target, LocalModel), "taken for one"
        exchange = self._exchange
        try:
            try:
                self._lane.proxy.supervisor.release(target.card.id)
            finally:
                finish(self._lane.proxy, exchange, self._resolved)
        except Exception:  # of ours; whoever called goes on, with a connection to look after
            log.exception("%s %s: its end failed", exchange.method.decode(), exchange.path)
        finally:
            self._call.finish()
