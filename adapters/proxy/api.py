"""All routes of the proxy (llama-swap.md section 5.5)."""

from __future__ import annotations

from . import control, log_routes, model_requests, passthrough
from .model_routes import POST_PATHS
from .routes import Route, RouteTable

ROUTES = RouteTable(
    (
        *(
            Route(method="POST", path=path, handler=model_requests.post, access="infer", cut=cut)
            for path, cut in POST_PATHS.items()
        ),
        Route(method="GET", path="/health", handler=control.health, access="open", changes=False),
        Route(
            method="GET", path="/wol-health", handler=control.health, access="open", changes=False
        ),
        Route(method="GET", path="/v1/models", handler=control.models, access="any", changes=False),
        Route(method="GET", path="/models", handler=control.models, access="any", changes=False),
        Route(method="GET", path="/running", handler=control.running, changes=False),
        Route(method="GET", path="/unload", handler=control.unload_all_text),
        Route(method="POST", path="/api/models/unload", handler=control.unload_all),
        Route(method="POST", path="/api/models/unload/*", handler=control.unload),
        Route(method="GET", path="/api/models/*/history", handler=control.history, changes=False),
        Route(method="*", path="/upstream/*", handler=passthrough.upstream, access="any"),
        Route(method="GET", path="/logs/stream", handler=log_routes.stream, changes=False),
        Route(method="GET", path="/logs/stream/*", handler=log_routes.stream, changes=False),
    )
)
