"""All routes of the proxy; docs/llama-swap.md compares them with llama-swap's."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeAlias

from ...http1.asgi_types import Send
from ..routing import Route, RouteAccess, RouteSubject, RouteTable
from . import (
    activity,
    config,
    control,
    events,
    hardware,
    inference,
    logs,
    metrics,
    models,
    openapi,
    passthrough,
    performance,
    queue,
    ui,
)
from .inference_paths import GET_PATHS, POST_PATHS

if TYPE_CHECKING:
    from ..context import ProxyContext
if TYPE_CHECKING:
    from ..request import Request

#: What a request to a model may change.
_LOADS = "loads the model, may evict others"


def _get(
    path: str, handler: Handler, access: RouteAccess = "admin", subject: RouteSubject = "whole"
) -> Route:
    """Return a route that only tells something."""
    return Route(
        method="GET", path=path, handler=handler, access=access, subject=subject, changes=""
    )


def _health(path: str) -> Route:
    return Route(
        method="GET", path=path, handler=control.health, access="open", subject="nothing",
        changes="", takes_any_host=True,
    )  # fmt: skip


def _post(path: str, handler: Handler, changes: str, subject: RouteSubject = "whole") -> Route:
    return Route(method="POST", path=path, handler=handler, changes=changes, subject=subject)


def _any(path: str, handler: Handler, access: RouteAccess) -> Route:
    return Route(
        method="*", path=path, handler=handler, access=access, subject="models", is_page=True,
        changes=passthrough.LOADS_AND_ANYTHING,
    )  # fmt: skip


ROUTES = RouteTable(
    (
        # ---- models, by body and by query
        *(
            Route(
                method="POST",
                path=path,
                handler=inference.post,
                kind="inference",
                access="infer",
                subject="models",
                changes=_LOADS,
                cut=cut,
            )
            for path, cut in POST_PATHS.items()
        ),
        *(
            Route(
                method="GET",
                path=path,
                handler=inference.get,
                access="infer",
                subject="models",
                changes=_LOADS,
            )
            for path in GET_PATHS
        ),
        # ---- open to everybody
        _health("/health"),
        _health("/wol-health"),
        _get("/", ui.root, "open", "nothing"),
        _get("/favicon.ico", ui.icon, "open", "nothing"),
        # ---- the web UI
        _get("/ui", ui.folder, "any", "nothing"),
        _get("/ui/", ui.file, "any", "nothing"),
        _get("/ui/*", ui.file, "any", "nothing"),
        _get("/upstream", ui.models_page, "any", "nothing"),
        # ---- what there is and runs
        _get("/v1/models", models.models, "any", "models"),
        _get("/models", models.router_models, "any", "models"),
        _get("/running", models.running, subject="models"),
        _get("/api/version", control.version, "any", "nothing"),
        _get("/openapi.json", openapi.show, "any", "nothing"),
        _get("/api/models/*/chart", models.chart, subject="models"),
        _get("/api/models/*/history", models.history, subject="models"),
        _get("/api/models/*/explain", queue.explain, subject="models"),
        _get("/api/queue", queue.queue, subject="models"),
        _get("/api/events", events.stream, subject="models"),
        # ---- what was written down
        _get("/api/metrics/activity", activity.activity, subject="models"),
        _get("/api/metrics/stats", activity.stats, subject="models"),
        _get("/api/captures/*", activity.capture, subject="models"),
        _get("/metrics", metrics.metrics),
        _get("/api/performance", performance.performance),
        _get("/api/hardware", hardware.hardware),
        # ---- stopping and starting
        Route(
            method="GET", path="/unload", handler=control.unload_all_text,
            changes="unloads all models",
        ),
        _post("/api/models/unload", control.unload_all, "unloads all models"),
        _post("/api/models/unload/*", control.unload, "unloads the model", "models"),
        _post("/models/load", control.router_load, _LOADS, "models"),
        _post("/models/unload", control.router_unload, "unloads the model", "models"),
        _get("/api/profiles", control.profiles),
        Route(
            method="PUT", path="/api/profiles/active", handler=control.activate_profile,
            changes="activates a profile",
        ),
        _post("/api/inflight/*/cancel", control.cancel, "cancels the request", "models"),
        # ---- passed on as they are
        _any("/upstream/*", passthrough.upstream, "any"),
        _any("/comfyui", passthrough.comfyui_root, "infer"),
        _any("/comfyui/", passthrough.comfyui, "infer"),
        _any("/comfyui/*", passthrough.comfyui, "infer"),
        # ---- the configuration
        _get("/api/config", config.show),
        _post("/api/config/plan", config.plan, "nothing; reads the configuration files"),
        _post("/api/config/reload", config.reload, "applies the configuration files"),
        # ---- logs
        _get("/logs", logs.history),
        _get("/logs/stream", logs.stream),
        _get("/logs/stream/*", logs.stream, subject="models"),
    )
)  # fmt: skip


Handler: TypeAlias = "Callable[[ProxyContext, Request, Send], Awaitable[None]]"
