"""All routes of the proxy: the handler, key and description of each.

docs/llama-swap.md compares them with llama-swap's.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

from msgspec import Meta

from ...http1.asgi_types import Send
from ..routing import TEXT, Content, Operation, Route, RouteAccess, RouteSubject, RouteTable
from . import (
    activity,
    config,
    control,
    events,
    host,
    inference,
    kv,
    logs,
    models,
    nodes,
    openapi,
    passthrough,
    queue,
    router_events,
    ui,
)
from .handler import ApiHandler
from .inference_paths import GET_PATHS, POST_PATHS, SERVER_GET_PATHS, SERVER_POST_PATHS
from .metrics import handlers as metrics
from .ollama.routes import ROUTES as OLLAMA_ROUTES
from .schema.control import ModelName, ModelRequest, ProfileName
from .schema.memory import YieldRequest
from .schema.requests import Capture
from .timeline import routes as timeline

if TYPE_CHECKING:
    from ..context import ProxyContext
    from ..request import Request

#: What a request to a model may change.
_LOADS = "loads the model, may evict others"
#: Parameter of the query that says whether a request may start its model; see ``start_rules``.
_AUTOLOAD = {"autoload": bool}
_FORWARDED = (openapi.UPSTREAM, openapi.UPSTREAM_OTHER)
_EVENTS = Content(200, "Events until the client disconnects.", "text/event-stream")
_NO_DELETION = Content(501, "swapchart deletes no files of models.", "application/json")
_FILE = (Content(200, "The file."), Content(304, "The client has the current file."))
_MODEL_ERRORS = (404, 413, 415, 429, 502, 503, 504)
_CHANGE_ERRORS = (404, 413, 415)
#: Milliseconds since 1970, or a time such as 2026-01-31T12:00:00Z.
_MOMENT = str
_Id: TypeAlias = Annotated[int, Meta(ge=0)]


def _redirect(status: int, to: str) -> Content:
    return Content(status, f"Redirect to {to}.", headers=("location",))


def _operation(handler: Handler, summary: str, *responses: Content, **more: Any) -> Operation:
    """Return the operation of *handler*, which declares its responses itself or gets *responses*.

    Raises:
        TypeError: No type of a response is declared.
    """
    declared = handler.responses if isinstance(handler, ApiHandler) else ()
    types = (*declared, *responses)
    return Operation(summary=summary, responses=more.pop("responses", types), **more)


def _get(
    path: str, handler: Handler, summary: str, *responses: Content,
    access: RouteAccess = "admin", subject: RouteSubject = "whole", **more: Any,
) -> Route:  # fmt: skip
    """Return a route that changes nothing."""
    return Route(
        method="GET", path=path, handler=handler, access=access, subject=subject, changes="",
        operation=_operation(handler, summary, *responses, **more),
    )  # fmt: skip


def _health(path: str) -> Route:
    return Route(
        method="GET", path=path, handler=control.health, access="open", subject="nothing",
        changes="", takes_any_host=True,
        operation=_operation(control.health, "Check that the proxy responds"),
    )  # fmt: skip


def _change(
    method: str, path: str, handler: Handler, summary: str, changes: str,
    subject: RouteSubject = "whole", **more: Any,
) -> Route:  # fmt: skip
    """Return a route for administrators that changes something."""
    return Route(
        method=method, path=path, handler=handler, changes=changes, subject=subject,
        operation=_operation(handler, summary, **more),
    )  # fmt: skip


def _any(
    path: str, handler: Handler, access: RouteAccess, summary: str, *responses: Content,
    parameter: str = "",
) -> Route:  # fmt: skip
    """Return a route whose requests go to one model's server, whatever their method."""
    return Route(
        method="*", path=path, handler=handler, access=access, subject="models", is_page=True,
        changes=passthrough.LOADS_AND_ANYTHING,
        operation=Operation(
            summary=summary, parameter=parameter, query=_AUTOLOAD,
            responses=responses or _FORWARDED,
        ),
    )  # fmt: skip


def _inference(path: str, cut: bytes) -> Route:
    return Route(
        method="POST", path=path, handler=inference.post, kind="inference", access="infer",
        subject="models", changes=_LOADS, cut=cut,
        operation=Operation(
            summary=f"Send a request to {path} of the model's server", responses=_FORWARDED,
            errors=_MODEL_ERRORS, body=ModelRequest, query=_AUTOLOAD,
            body_types=("application/json", "multipart/form-data"),
        ),
    )  # fmt: skip


def _inference_query(path: str, access: RouteAccess = "infer") -> Route:
    return Route(
        method="GET", path=path, handler=inference.get, access=access, subject="models",
        changes=_LOADS,
        operation=Operation(
            summary=f"Send a request to {path} of the model's server", responses=_FORWARDED,
            errors=_MODEL_ERRORS, query={"model": str, **_AUTOLOAD}, required=("model",),
        ),
    )  # fmt: skip


def _server(path: str, changed: str) -> Route:
    """Return a route whose requests change *changed* of the server of the model they name."""
    return Route(
        method="POST", path=path, handler=inference.post, kind="inference", subject="models",
        changes=f"{_LOADS}; {changed}",
        operation=Operation(
            summary=f"Change {changed}", responses=_FORWARDED, errors=_MODEL_ERRORS,
            query={"model": str, **_AUTOLOAD}, parameter="slot" if "*" in path else "",
        ),
    )  # fmt: skip


def _any_other() -> Route:
    return Route(
        method="POST", path="/*", handler=inference.post, kind="inference", subject="models",
        changes=passthrough.LOADS_AND_ANYTHING, is_fallback=True,
        operation=Operation(
            summary="Send a request to any other path of the model's server",
            responses=_FORWARDED, errors=_MODEL_ERRORS, body=ModelRequest, parameter="path",
            query=_AUTOLOAD,
            body_types=("application/json", "multipart/form-data"),
        ),
    )  # fmt: skip


def _limit(name: str, low: int, high: int) -> dict[str, Any]:
    return {name: Annotated[int, Meta(ge=low, le=high)]}


def _routes() -> Iterable[Route]:
    return ROUTES.routes


ROUTES: RouteTable = RouteTable(
    (
        # ---- models, named in the body or in the query
        *(_inference(path, cut) for path, cut in POST_PATHS.items()),
        *(_inference_query(path) for path in GET_PATHS),
        *(_inference_query(path, "admin") for path in SERVER_GET_PATHS),
        *(_server(path, changed) for path, changed in SERVER_POST_PATHS.items()),
        # ---- health
        _health("/health"),
        _health("/wol-health"),
        _get("/health/readiness", queue.readiness, "Get the readiness of all models",
             access="any", subject="models"),
        _get("/health/readiness/*", queue.model_readiness, "Get the readiness of a model",
             access="any", subject="models", errors=(404,), parameter="model"),
        _get("/", ui.root, "Go to the web UI", _redirect(302, "/ui"), access="open",
             subject="nothing"),
        _get("/favicon.ico", ui.icon, "Get the icon", *_FILE, access="open", subject="nothing",
             errors=(404,)),
        # ---- the web UI
        _get("/ui", ui.folder, "Go to the web UI", _redirect(301, "/ui/"), access="any",
             subject="nothing"),
        _get("/ui/", ui.file, "Get the web UI", *_FILE, access="any", subject="nothing",
             errors=(404,)),
        _get("/ui/*", ui.file, "Get a file of the web UI", *_FILE, access="any",
             subject="nothing", errors=(404,), parameter="file"),
        _get("/upstream", ui.models_page, "Go to the list of models",
             _redirect(302, "the list"), access="any", subject="nothing"),
        # ---- models and requests
        _get("/v1/models", models.models, "List the models", access="any", subject="models"),
        _get("/v1/models/*", models.model, "Get a model", access="any", subject="models",
             errors=(404,), parameter="model"),
        _get("/models", models.router_models, "List the models as llama-server's router does",
             access="any", subject="models"),
        _get("/running", models.running, "List the models whose server runs", subject="models"),
        _get("/api/version", control.version, "Get the version of the program", access="any",
             subject="nothing"),
        _get("/openapi.json", openapi.handler(_routes), "Get this document",
             Content(200, "The document.", "application/json"), access="any", subject="nothing"),
        _get("/api/models/*/chart", models.chart,
             "Get the lifecycle chart of a model and its active states", subject="models",
             errors=(404,), parameter="model"),
        _get("/api/models/*/history", models.history, "List the last transitions of a model",
             subject="models", errors=(404, 503), parameter="model",
             query=_limit("limit", 1, models.HISTORY_LIMIT)),
        _get("/api/models/*/starts", timeline.starts,
             "List the last starts of a model with their transitions and hooks",
             subject="models", errors=(404, 503), parameter="model",
             query=_limit("limit", 1, timeline.MOST_STARTS)),
        _get("/api/models/*/explain", queue.explain, "Explain what a request would cause",
             subject="models", errors=(404,), parameter="model"),
        _get("/api/models/*/kv", kv.saved,
             "Get what is kept of the prompt cache of a model, with its conversations",
             subject="models", errors=(404,), parameter="model",
             query={**_limit("limit", 1, kv.MOST_CONVERSATIONS), "words": bool}),
        _change("DELETE", "/api/models/*/kv", kv.purge,
                "Remove the saved conversations of a model",
                "removes the saved conversations of the model", "models", errors=(404, 409, 503),
                parameter="model"),
        _get("/api/timeline", timeline.timeline,
             "Get models, requests and memory over a span of time", subject="models",
             errors=(503,), query={"from": _MOMENT, "to": _MOMENT}),
        _get("/api/swaps/*", timeline.swap,
             "Get the transitions of a swap with their hooks, and the requests that waited for it",
             subject="models", errors=(404, 503), parameter="id"),
        _get("/api/memory", host.memory, "Get the memory pools and what models hold of them",
             subject="models"),
        _get("/api/nodes", nodes.nodes, "Get the nodes and what runs there", subject="models"),
        _get("/api/queue", queue.queue, "Get the queue and why its requests wait",
             subject="models"),
        _get("/api/events", events.stream, "Stream events", _EVENTS, subject="models",
             errors=(413, 429), query={"logs": events.Logs}),
        # ---- records
        _get("/api/metrics/activity", activity.activity, "List finished requests",
             subject="models", errors=(503,),
             query={**_limit("limit", 1, 999), **_limit("page", 1, 10**9)}),
        _get("/api/metrics/stats", activity.stats, "Get totals of finished requests",
             subject="models", errors=(503,), query={"model": str}),
        _get("/api/captures/*", activity.capture, "Get a request and its response",
             subject="models", errors=(404,), parameter="id", parameter_type=_Id,
             responses=(Capture,)),
        _get("/metrics", metrics.metrics, "Get metrics for Prometheus", TEXT,
             access="metrics"),
        _get("/metrics/models", metrics.metrics_of_models,
             "Get metrics of the servers of all ready models for Prometheus", TEXT,
             access="metrics"),
        _get("/api/performance", host.performance, "Get samples of the load of the host",
             query={"after": Annotated[str, Meta(extra_json_schema={"format": "date-time"})]}),
        _get("/api/hardware", host.hardware, "Get the hardware of the host"),
        # ---- loading and unloading
        _change("GET", "/unload", control.unload_all_text, "Unload all models",
                "unloads all models"),
        _change("POST", "/api/models/unload", control.unload_all, "Unload all models",
                "unloads all models", errors=(415,)),
        _change("POST", "/api/models/unload/*", control.unload, "Unload a model",
                "unloads the model", "models", errors=(*_CHANGE_ERRORS, 409, 503),
                parameter="model"),
        _change("POST", "/api/models/load/*", control.load, "Load a model", _LOADS, "models",
                errors=(*_CHANGE_ERRORS, 429, 502, 503, 504), parameter="model"),
        _change("POST", "/api/models/pin/*", control.pin,
                "Keep a loaded model until it is unloaded, whatever its idle limit",
                "removes the idle limit of the model until it is unloaded", "models",
                errors=(*_CHANGE_ERRORS, 409), parameter="model"),
        _change("POST", "/api/models/unpin/*", control.unpin,
                "Give a loaded model its own idle limit again",
                "gives the model its own idle limit again", "models",
                errors=(*_CHANGE_ERRORS, 409), parameter="model"),
        _get("/models/sse", router_events.stream,
             "Stream the status of models as llama-server's router does", _EVENTS, access="any",
             subject="models", errors=(413, 429)),
        _change("POST", "/models", control.router_add, "Check that a model is configured",
                "nothing; nothing is downloaded", "models", errors=(*_CHANGE_ERRORS, 501),
                body=ModelName),
        _change("DELETE", "/models", control.router_remove, "Delete no model",
                "nothing; no file is ever deleted", "models", responses=(_NO_DELETION,)),
        _change("POST", "/models/load", control.router_load, "Begin to load a model", _LOADS,
                "models", errors=_CHANGE_ERRORS, body=ModelName),
        _change("POST", "/models/unload", control.router_unload, "Begin to unload a model",
                "unloads the model", "models", errors=_CHANGE_ERRORS, body=ModelName),
        _change("POST", "/api/memory/yield", host.yield_memory,
                "Leave memory pools to other programs, or end that",
                "leaves memory pools to other programs", errors=(409, 413, 415),
                body=YieldRequest),
        _change("DELETE", "/api/memory/learned/*", host.forget_memory,
                "Forget what was learned of the memory of a model",
                "forgets what was learned of the memory of the model", "models", errors=(404,),
                parameter="model"),
        _change("POST", "/api/nodes/free/*", nodes.free,
                "Free what models may hold on a lost node, where nothing runs any more",
                "frees what models may hold on a lost node", errors=(415,), parameter="node"),
        _get("/api/profiles", control.profiles, "List the profiles"),
        _change("PUT", "/api/profiles/active", control.activate_profile, "Activate a profile",
                "activates a profile", errors=_CHANGE_ERRORS, body=ProfileName),
        _change("POST", "/api/inflight/*/cancel", control.cancel, "Cancel a request",
                "cancels the request", "models", errors=_CHANGE_ERRORS, parameter="id",
                parameter_type=_Id),
        # ---- forwarded unchanged
        _any("/upstream/*", passthrough.upstream, "any",
             "Send any request to a model's server: model/path", parameter="path"),
        _any("/comfyui", passthrough.comfyui_root, "infer", "Go to ComfyUI",
             _redirect(301, "/comfyui/"), _redirect(308, "/comfyui/")),
        _any("/comfyui/", passthrough.comfyui, "infer", "Get ComfyUI's first page"),
        _any("/comfyui/*", passthrough.comfyui, "infer", "Send any request to ComfyUI",
             parameter="path"),
        # ---- configuration
        _get("/api/config", config.show, "Get the source of the configuration", errors=(503,)),
        _get("/api/models/*/config", config.model_settings,
             "Get the settings of a model with the file and line of each", errors=(404, 503),
             parameter="model"),
        _change("POST", "/api/config/plan", config.plan, "Get what a reload would change",
                "nothing; reads the configuration files", errors=(413, 415, 503)),
        _change("POST", "/api/config/reload", config.reload, "Reload the configuration",
                "applies the configuration files", errors=(413, 415, 503)),
        # ---- logs
        _get("/logs", logs.history, "Get the history of all logs", TEXT,
             _redirect(302, "the web UI, for a browser")),
        _get("/logs/stream", logs.stream, "Stream all logs", TEXT, errors=(413, 429)),
        _get("/logs/stream/*", logs.stream, "Stream a model's log, or that of one start", TEXT,
             subject="models", errors=(404, 413, 429), parameter="name", query={"start": str}),
        # ---- Ollama's API
        *OLLAMA_ROUTES,
        # ---- every other path, which the server of a model may have
        _any_other(),
    )
)  # fmt: skip


Handler: TypeAlias = "Callable[[ProxyContext, Request, Send], Awaitable[None]]"
