"""The proxy as an ASGI application: routes, admission control and the handler of the route.

`ProxyApp` makes those checks of ``forwarding.CHECKS`` that need no body; the handlers in `api` make
the others.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias
from urllib.parse import quote_from_bytes, unquote_to_bytes

from ...runtime import LogRing, Supervisor
from ...runtime.fence import kept
from ..http1.asgi_types import Headers, Message, Receive, Scope, Send
from ..http1.request_id import FIELD, REQUEST_ID, request_id_of
from ..store.activity import ActivityStore
from .access.admission import Denied, json_refusal
from .access.origins import preflight
from .accounting.request_record import RequestRecord
from .api.events import EventPublisher
from .api.passthrough import bad_path, redirect
from .api.route_table import ROUTES
from .body.memory_budget import BodyBudget
from .context import History, ProxyContext
from .forwarding.conversation_slot import send_in_slot
from .forwarding.fast_path import FastPath
from .models.catalog import ModelCatalog
from .monitoring.host import HostSampler, sample_on
from .options import ProxyOptions
from .request import Request, run_until_disconnect
from .responses import error_value, is_ollama, send_error, send_json
from .routing import Route, cleaned
from .tracing.port import Tracing

OnFinished: TypeAlias = Callable[[RequestRecord], None]

_URL_BYTES = "!$%&'()*+,-./:;=?@_~"
_BEGINNINGS = frozenset(
    {"http.response.start", "websocket.accept", "websocket.http.response.start"}
)
_BODY_METHODS = frozenset({"POST", "PUT", "PATCH"})


class ProxyApp:
    """Responds to requests for the models of one supervisor.

    Args:
        supervisor: Runs the models; already entered.
        catalogue: The models as clients see them.
        options: Behavior towards clients.
        on_finished: Called with the record of every finished request; must not block.
        history: (id, limit=n) -> the last transitions of a model, the newest first.
        own_log: Log of the proxy itself; see ``log_buffer.keeping_log``.
        activity: Store of activity rows; None means they are not stored.
        tracing: Makes spans of requests; None means that nothing is traced.

    Attributes:
        proxy: What its handlers share.
        bodies: Memory budget of request bodies.
        fast_path: Accepts requests that need no task.
    """

    def __init__(
        self, supervisor: Supervisor, catalogue: ModelCatalog, options: ProxyOptions | None = None,
        *, on_finished: OnFinished | None = None, history: History | None = None,
        own_log: LogRing | None = None, activity: ActivityStore | None = None,
        tracing: Tracing | None = None,
    ) -> None:  # fmt: skip
        self.proxy = ProxyContext(
            supervisor, catalogue, options or ProxyOptions(), history=history,
            on_finished=on_finished, own_log=own_log, activity=activity, tracing=tracing,
        )  # fmt: skip
        self.proxy.send_in_slot = send_in_slot
        self.bodies = BodyBudget(
            self.proxy.options.body_budget_bytes, self.proxy.options.body_wait_s
        )
        self.fast_path = FastPath(self.proxy, ROUTES, self.bodies)
        self._publisher = EventPublisher(self.proxy)
        self.proxy.change_publisher = self._publisher
        self._ends = [
            supervisor.listen(self._publisher.on_transition),
            supervisor.listen(self.proxy.accounting.metrics.on_transition),
            supervisor.listen(self.proxy.failed_starts.on_transition),
            supervisor.listen(self.proxy.loaded.on_transition),
        ]
        if tracing is not None:
            self._ends.append(tracing.attach(supervisor, self.proxy.in_flight))
        self.proxy.spawn(
            kept(sample_on, self.proxy.accounting.samples, self._sample_period_s, HostSampler())
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one HTTP request or one websocket (ASGI 3)."""
        if REQUEST_ID not in (scope.get("extensions") or ()):
            await self._serve_identified(scope, receive, send)
            return
        if scope["type"] == "websocket":
            from .api import websockets  # few processes need it

            await websockets.serve(self.proxy, scope, receive, send)
            return
        request = Request(scope, receive, self.bodies)
        request.refusals = self.proxy.refusals
        await run_until_disconnect(request, self._respond(request, send))

    async def _serve_identified(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve under a server that does not add the id of a request to its response."""
        request_id = request_id_of(scope["headers"])
        extensions = {**(scope.get("extensions") or {}), REQUEST_ID: request_id}
        has_begun = False

        async def send_identified(message: Message) -> None:
            nonlocal has_begun
            if message["type"] in _BEGINNINGS:
                has_begun = True
                message = {**message, "headers": [*message["headers"], (FIELD, request_id)]}
            await send(message)

        try:
            await self({**scope, "extensions": extensions}, receive, send_identified)
        except Exception:
            if scope["type"] == "http" and not has_begun:  # the server's own response has no id
                await send_json(send_identified, error_value(500, "internal error"), 500)
            raise

    def _sample_period_s(self) -> float | None:
        return self.proxy.options.performance_every_s

    async def aclose(self) -> None:
        """End all streams, and close all connections to upstreams."""
        for end in self._ends:
            end()
        self._publisher.close()
        self.fast_path.finish_all()
        await self.proxy.aclose()

    def end_streams(self) -> None:
        """End the streams of logs and events, which would hold up the shutdown of the server."""
        self.proxy.end_streams()

    async def _respond(self, request: Request, send: Send) -> None:
        """Pass *request* through the checks that need no body, then to the handler of its route."""
        path, method, proxy = request.path, request.method, self.proxy
        if method == "OPTIONS":
            await self._preflight(request, send)
            return
        route, request.path_suffix = ROUTES.find(method, path)
        if route is None:
            route = _fallback(request)
        # Loop of peers, Host, Origin, API key, scope: one verdict for all with the same headers.
        cached = request.cached_headers = proxy.header_cache.of(request.scope)
        verdict = cached.verdicts.get(id(route))
        if verdict is None:
            verdict = cached.verdicts[id(route)] = proxy.admission.admit(request.scope, route)
        if verdict.origin is not None:
            send, request.send_full_response = _with_origin(send, verdict.origin), None
        if isinstance(verdict, Denied):
            await _send_denial(request, send, verdict)
            return
        request.access = verdict.access
        if route is None:
            await _send_no_route(request, send)
            return
        if route.access == "admin" and route.changes and method in _BODY_METHODS:
            passes_on = route.method == "*" or route.kind == "inference"
            denied = None if passes_on else json_refusal(request.headers)
            if denied is not None:
                await _send_denial(request, send, denied)
                return
        if cached.keep_alive_error and (
            route.access in ("infer", "any") or route.kind == "inference"
        ):
            await send_error(request, send, 400, cached.keep_alive_error)
            return
        request.route = route
        await route.handler(proxy, request, send)

    async def _preflight(self, request: Request, send: Send) -> None:
        admission = self.proxy.admission
        denied = admission.host_refusal(request.scope)
        if denied is not None:
            await _send_denial(request, send, denied)
            return
        headers = preflight(request.headers, admission.origin_of(request.headers))
        await send({"type": "http.response.start", "status": 204, "headers": headers})
        await send({"type": "http.response.body", "body": b""})


def _fallback(request: Request) -> Route | None:
    """Return the route for a path that no route has, if the path is clean, else None."""
    path = request.path_bytes
    if bad_path(path) or cleaned(path) != path or is_ollama(request.path):
        return None
    return ROUTES.other(request.method, request.path)


async def _send_denial(request: Request, send: Send, denied: Denied) -> None:
    await send_error(
        request, send, denied.status, denied.message, code=denied.code or None,
        headers=denied.headers,
    )  # fmt: skip


async def _send_no_route(request: Request, send: Send) -> None:
    location = clean_location(request)
    if location is not None:
        await redirect(request, send, location)
        return
    allowed = ROUTES.allowed(request.path)
    if allowed:
        headers = [(b"allow", ", ".join(allowed).encode())]
        message = f"{request.method} is not allowed here"
        await send_error(request, send, 405, message, headers=headers)
    else:
        await send_error(request, send, 404, f"no such route: {request.path}")


def clean_location(request: Request) -> bytes | None:
    """Return the target without ``//`` and ``..`` if there is a route for that, else None.

    The part of a path that is for a model's server is not cleaned. Bytes that are not allowed in
    URLs are encoded: a browser reads a backslash as a slash, and two of them begin a host name.
    """
    given = request.path_bytes
    path = cleaned(given)
    if path == given or bad_path(given):
        return None
    route, _ = ROUTES.find(request.method, unquote_to_bytes(path).decode("utf-8", "replace"))
    if route is None or (route.method == "*" and not given.endswith(path)):
        return None
    query = b"?" + request.query if request.query else b""
    return quote_from_bytes(path + query, safe=_URL_BYTES).encode()


def _with_origin(send: Send, origin: bytes) -> Send:
    """Replace the CORS headers of a response, so that pages of *origin* may read it."""
    added: Headers = [(b"access-control-allow-origin", origin), (b"vary", b"origin")]

    async def send_with_origin(message: Message) -> None:
        if message["type"] == "http.response.start":
            kept = [
                (name, value)
                for name, value in message["headers"]
                if not name.startswith(b"access-control-")
            ]
            message = {**message, "headers": kept + added}
        await send(message)

    return send_with_origin
