"""All routes of the proxy (llama-swap.md section 5.5)."""

from __future__ import annotations

from . import (
    activity_routes,
    config_routes,
    control,
    events,
    exposition,
    facts,
    hardware,
    log_routes,
    model_requests,
    openapi,
    passthrough,
    performance,
    queue_facts,
    ui_files,
)
from .model_routes import GET_PATHS, POST_PATHS
from .routes import Handler, Route, RouteAccess, RouteTable


def _get(path: str, handler: Handler, access: RouteAccess = "admin") -> Route:
    """Return a route that only tells something."""
    return Route(method="GET", path=path, handler=handler, access=access, changes=False)


def _post(path: str, handler: Handler, access: RouteAccess = "admin", cut: bytes = b"") -> Route:
    return Route(method="POST", path=path, handler=handler, access=access, cut=cut)


def _any(path: str, handler: Handler, access: RouteAccess) -> Route:
    return Route(method="*", path=path, handler=handler, access=access)


ROUTES = RouteTable(
    (
        # ---- models, by body and by query
        *(_post(path, model_requests.post, "infer", cut) for path, cut in POST_PATHS.items()),
        *(
            Route(method="GET", path=path, handler=model_requests.get, access="infer")
            for path in GET_PATHS
        ),
        # ---- open to everybody
        _get("/health", control.health, "open"),
        _get("/wol-health", control.health, "open"),
        _get("/", ui_files.root, "open"),
        _get("/favicon.ico", ui_files.icon, "open"),
        # ---- the web UI
        _get("/ui", ui_files.folder, "any"),
        _get("/ui/", ui_files.file, "any"),
        _get("/ui/*", ui_files.file, "any"),
        _get("/upstream", ui_files.models_page, "any"),
        # ---- what there is and runs
        _get("/v1/models", facts.models, "any"),
        _get("/models", facts.router_models, "any"),
        _get("/running", facts.running),
        _get("/api/version", control.version, "any"),
        _get("/openapi.json", openapi.show, "any"),
        _get("/api/models/*/chart", facts.chart),
        _get("/api/models/*/history", facts.history),
        _get("/api/models/*/explain", queue_facts.explain),
        _get("/api/queue", queue_facts.queue),
        _get("/api/events", events.stream),
        # ---- what was written down
        _get("/api/metrics/activity", activity_routes.activity),
        _get("/api/metrics/stats", activity_routes.stats),
        _get("/api/captures/*", activity_routes.capture),
        _get("/metrics", exposition.metrics),
        _get("/api/performance", performance.performance),
        _get("/api/hardware", hardware.hardware),
        # ---- stopping and starting
        Route(method="GET", path="/unload", handler=control.unload_all_text),
        _post("/api/models/unload", control.unload_all),
        _post("/api/models/unload/*", control.unload),
        _post("/models/load", control.router_load),
        _post("/models/unload", control.router_unload),
        _get("/api/profiles", control.profiles),
        Route(method="PUT", path="/api/profiles/active", handler=control.activate_profile),
        _post("/api/inflight/*/cancel", control.cancel),
        # ---- passed on as they are
        _any("/upstream/*", passthrough.upstream, "any"),
        _any("/comfyui", passthrough.comfyui_root, "infer"),
        _any("/comfyui/", passthrough.comfyui, "infer"),
        _any("/comfyui/*", passthrough.comfyui, "infer"),
        # ---- the configuration
        _get("/api/config", config_routes.show),
        _post("/api/config/plan", config_routes.plan),
        _post("/api/config/reload", config_routes.reload),
        # ---- logs
        _get("/logs", log_routes.history),
        _get("/logs/stream", log_routes.stream),
        _get("/logs/stream/*", log_routes.stream),
    )
)
