"""The ASGI application of the proxy: routes, and the way of a request from its head to its answer.

request -> name of the model -> the model is made ready -> relay -> the model is released

The way of a request to a ready model is short on purpose: two dictionary look-ups, one step of
the chart, one exchange with the upstream. Nothing is logged or stored on it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from time import perf_counter
from typing import Any, TypeAlias
from urllib.parse import parse_qs, unquote_to_bytes

from ...runtime import RequestError, Supervisor, SwapchartError
from ..upstream import UpstreamError, UpstreamTimeout
from .asgi_types import Receive, Scope, Send
from .catalogue import Catalogue
from .model_field import BadBodyError, model_of
from .relay import Exchange, Upstream, relay
from .request import BodyTooLargeError, ClientGoneError, Request
from .respond import send_error, send_json, send_text

log = logging.getLogger(__name__)

Handler: TypeAlias = Callable[[Request, Send], Awaitable[None]]

JSON_LIMIT_BYTES = 64 << 20
_CREDENTIALS = frozenset({b"authorization", b"x-api-key"})
_NOTHING: frozenset[bytes] = frozenset()

#: POST routes whose JSON body names the model -> what is cut off the path for the upstream.
MODEL_ROUTES: Mapping[str, bytes] = {
    **dict.fromkeys(
        (
            "/v1/chat/completions", "/v1/responses", "/v1/completions", "/v1/messages",
            "/v1/messages/count_tokens", "/v1/embeddings", "/reranking", "/rerank", "/v1/rerank",
            "/v1/reranking", "/infill", "/completion", "/v1/audio/speech", "/v1/audio/voices",
            "/v1/images/generations", "/sdapi/v1/txt2img", "/sdapi/v1/img2img",
        ),
        b"",
    ),
    "/audioapi/v1/tasks/run": b"/audioapi",
    **dict.fromkeys(
        (
            "/v/chat/completions", "/v/responses", "/v/completions", "/v/messages",
            "/v/messages/count_tokens", "/v/embeddings", "/v/rerank", "/v/reranking",
        ),
        b"/v",
    ),
}  # fmt: skip


class ProxyApp:
    """Answers HTTP requests for the models of one supervisor.

    Args:
        supervisor: Entered by whoever runs the application.
        catalogue: The models as clients see them.
        on_finished: Gets every finished exchange with a model; must not wait.
        history: (id, limit=n) -> the last transitions of a model, the newest first.
    """

    def __init__(
        self, supervisor: Supervisor, catalogue: Catalogue, *,
        on_finished: Callable[[Exchange], None] | None = None,
        history: Callable[..., Awaitable[list[dict[str, Any]]]] | None = None,
    ) -> None:  # fmt: skip
        self.supervisor, self.catalogue = supervisor, catalogue
        self._on_finished = on_finished
        self._history_of = history
        self._upstreams: dict[str, Upstream] = {}
        self._exact: dict[tuple[str, str], Handler] = {
            ("GET", "/health"): self._health,
            ("GET", "/wol-health"): self._health,
            ("GET", "/v1/models"): self._models,
            ("GET", "/models"): self._models,
            ("GET", "/running"): self._running,
            ("GET", "/unload"): self._unload_all_text,
            ("POST", "/api/models/unload"): self._unload_all,
        }
        self._prefixes: list[tuple[str | None, str, Handler]] = [
            (None, "/upstream/", self._upstream),
            ("POST", "/api/models/unload/", self._unload),
            ("GET", "/api/models/", self._history),
            ("GET", "/logs/stream/", self._log_stream),
            ("GET", "/logs/stream", self._log_stream),
        ]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Take one HTTP request; ASGI 3."""
        request = Request(scope, receive)
        try:
            await self._dispatch(request, send)
        except ClientGoneError:
            return
        except asyncio.CancelledError:
            if not request.is_gone:
                raise
            task = asyncio.current_task()
            if task is not None:
                task.uncancel()
        finally:
            request.unwatch()

    async def _dispatch(self, request: Request, send: Send) -> None:
        path, method = request.path, request.method
        if method == "POST":
            cut = MODEL_ROUTES.get(path)
            if cut is not None:
                await self._model_request(request, send, cut)
                return
        handler = self._exact.get(("GET" if method == "HEAD" else method, path))
        if handler is None:
            for wanted, prefix, candidate in self._prefixes:
                if path.startswith(prefix) and wanted in (None, method):
                    handler = candidate
                    break
        if handler is not None:
            await handler(request, send)
            return
        allowed = sorted({known for known, exact in self._exact if exact == path})
        if path in MODEL_ROUTES:
            allowed.append("POST")
        if allowed:
            allow = [(b"allow", ", ".join(allowed).encode())]
            await self._error(request, send, 405, f"{method} is not allowed here", headers=allow)
        else:
            await self._error(request, send, 404, f"no such route: {path}")

    async def aclose(self) -> None:
        """Close all connections to upstreams."""
        for upstream in self._upstreams.values():
            await upstream.pool.aclose()

    # ---- requests for models
    async def _model_request(self, request: Request, send: Send, cut: bytes) -> None:
        try:
            body = await request.body(JSON_LIMIT_BYTES)
            wanted, _ = model_of(body)
        except BodyTooLargeError as error:
            await self._error(request, send, 413, str(error), headers=[(b"connection", b"close")])
            return
        except BadBodyError as error:
            await self._error(request, send, 400, str(error))
            return
        if not wanted:
            await self._error(
                request, send, 400, "no model id could be identified: `model` is missing"
            )
            return
        name = self.catalogue.real_name(wanted)
        if name is None:
            await self._unknown_model(request, send, wanted)
            return
        body = self.catalogue.rewrite(name, wanted, body)
        target = request.target
        await self._serve(request, send, name, target.removeprefix(cut) if cut else target, body)

    async def _unknown_model(self, request: Request, send: Send, wanted: str) -> None:
        close = self.catalogue.closest(wanted)
        hint = f"; did you mean {close!r}?" if close else ""
        message = f"model not found: {wanted!r}{hint}"
        await self._error(request, send, 404, message, code="model_not_found")

    async def _serve(
        self, request: Request, send: Send, name: str, target: bytes,
        body: bytes | AsyncIterator[bytes] | None,
    ) -> None:  # fmt: skip
        """Make model *name* ready, relay, release; every outcome is answered."""
        exchange = Exchange(name, request.path, perf_counter())
        supervisor = self.supervisor
        request.watch()
        try:
            if not supervisor.acquire_nowait(name):
                await supervisor.acquire(name, priority=self.catalogue.priority(name))
        except RequestError as error:
            await self._refused(request, send, error)
            return
        try:
            exchange.admitted = perf_counter()
            await relay(
                request, send, self._upstream_of(name), target, body, exchange,
                strip=_CREDENTIALS if self.catalogue.has_keys else _NOTHING,
                header_timeout_s=self.catalogue.header_timeout_s(name),
            )  # fmt: skip
        except UpstreamError as error:
            if exchange.status:
                log.warning("%s broke off after %d bytes: %s", name, exchange.sent_bytes, error)
                raise
            status = 504 if isinstance(error, UpstreamTimeout) else 502
            message = f"the server of {name} failed: {error}"
            await self._error(request, send, status, message, code=f"upstream_{error.stage}")
            exchange.status = status
        finally:
            supervisor.release(name)
            if self._on_finished is not None:
                self._on_finished(exchange)

    def _upstream_of(self, name: str) -> Upstream:
        endpoint = self.supervisor[name].spec.endpoint
        upstream = self._upstreams.get(name)
        if upstream is None or upstream.endpoint != endpoint:
            upstream = self._upstreams[name] = Upstream(endpoint)
        return upstream

    async def _refused(self, request: Request, send: Send, error: RequestError) -> None:
        details: dict[str, Any] = {"log": list(error.log_tail)} if error.log_tail else {}
        await send_error(
            send, error.status_hint, str(error), accept=request.header(b"accept"), code=error.code,
            retry_after_s=error.retry_after_s, details=details,
        )  # fmt: skip

    async def _error(
        self, request: Request, send: Send, status: int, message: str, **more: Any
    ) -> None:
        await send_error(send, status, message, accept=request.header(b"accept"), **more)

    # ---- /upstream
    async def _upstream(self, request: Request, send: Send) -> None:
        """Pass anything to a model's server, percent-encoding and all."""
        raw = request.target
        path, mark, query = raw.partition(b"?")
        rest = path[len(b"/upstream/") :]
        found = self._split_model(rest)
        if found is None:
            wanted = unquote_to_bytes(rest.partition(b"/")[0]).decode("utf-8", "replace")
            await self._unknown_model(request, send, wanted)
            return
        name, remainder = found
        if not remainder:
            status = 301 if request.method in ("GET", "HEAD") else 308
            where = b"/upstream/" + rest + b"/" + mark + query
            headers = [(b"location", where)]
            await send_text(send, "see the location\n", status, headers)
            return
        if not self.supervisor.scheduler.seats[name].is_open and self.catalogue.is_ignored(
            remainder
        ):
            message = f"model {name} is not loaded; path matches upstream.ignorePaths"
            await self._error(request, send, 409, message)
            return
        body = await request.body_or_stream()
        await self._serve(request, send, name, remainder + mark + query, body)

    def _split_model(self, rest: bytes) -> tuple[str, bytes] | None:
        """Split ``model/path`` at the longest prefix that names a model; bytes stay as they are."""
        segments = rest.split(b"/")
        for count in range(len(segments), 0, -1):
            head = b"/".join(segments[:count])
            name = self.catalogue.real_name(unquote_to_bytes(head).decode("utf-8", "replace"))
            if name is not None:
                return name, rest[len(head) :]
        return None

    # ---- what there is
    async def _health(self, request: Request, send: Send) -> None:
        await send_text(send, "OK")

    async def _models(self, request: Request, send: Send) -> None:
        origin = request.header(b"origin")
        headers = [] if origin is None else [(b"access-control-allow-origin", origin)]
        await send_json(send, self.catalogue.listing(self.supervisor), headers=headers)

    async def _running(self, request: Request, send: Send) -> None:
        await send_json(send, self.catalogue.running(self.supervisor))

    async def _unload_all(self, request: Request, send: Send) -> None:
        await self.supervisor.unload_all("unloaded by API")
        await send_json(send, {"msg": "ok"})

    async def _unload_all_text(self, request: Request, send: Send) -> None:
        await self.supervisor.unload_all("unloaded by API")
        await send_text(send, "OK")

    async def _unload(self, request: Request, send: Send) -> None:
        wanted = request.path.removeprefix("/api/models/unload/")
        name = self.catalogue.real_name(wanted)
        if name is None:
            await self._unknown_model(request, send, wanted)
            return
        await self.supervisor.unload(name, "unloaded by API")
        await send_text(send, "OK")

    async def _history(self, request: Request, send: Send) -> None:
        """``/api/models/<id>/history``: the last transitions of a model, the newest first."""
        wanted, _, what = request.path.removeprefix("/api/models/").rpartition("/")
        if what != "history" or self._history_of is None:
            await self._error(request, send, 404, f"no such route: {request.path}")
            return
        name = self.catalogue.real_name(wanted)
        if name is None:
            await self._unknown_model(request, send, wanted)
            return
        query = parse_qs((request.scope.get("query_string") or b"").decode("latin-1"))
        limit = query.get("limit", ["100"])[-1]
        if not limit.isdecimal() or not 1 <= int(limit) <= 10_000:
            message = f"limit: expected 1 to 10000, got {limit!r}"
            await self._error(request, send, 400, message)
            return
        try:
            rows = await self._history_of(name, limit=int(limit))
        except SwapchartError as error:
            await self._error(request, send, 503, str(error))
            return
        await send_json(send, {"model": name, "data": rows})

    # ---- logs
    async def _log_stream(self, request: Request, send: Send) -> None:
        """Stream a model's log, or all models' together, until the client leaves."""
        wanted = request.path.removeprefix("/logs/stream").strip("/")
        if wanted in ("", "upstream"):
            ring = self.supervisor.log
        else:
            name = self.catalogue.real_name(wanted)
            if name is None:
                await self._error(request, send, 400, f"invalid log id: {wanted!r} is no model")
                return
            ring = self.supervisor[name].log
        await request.body(1 << 16)
        request.watch()
        headers = [
            (b"content-type", b"text/plain; charset=utf-8"),
            (b"x-accel-buffering", b"no"),
            (b"x-content-type-options", b"nosniff"),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"", "more_body": True})
        query: bytes = request.scope.get("query_string") or b""
        async for data in ring.stream(history=b"no-history" not in query):
            await send({"type": "http.response.body", "body": data, "more_body": True})
