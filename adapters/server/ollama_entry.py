"""The application as clients of the listener of Ollama's API see it.

Its paths are those below ``/ollama`` of the application, except for ``/v1/``, which Ollama has too.
The checks of keys, Host and Origin are the same.
"""

from __future__ import annotations

from ..app.application import Application
from ..http1.asgi_types import Receive, Scope, Send
from ..http1.server.request_cycle import RequestCycle
from ..proxy.access.guest_key import with_guest_key
from ..proxy.models.tags import LISTENER

_PREFIX = "/ollama"
_SAME = ("/v1/", "/ollama/")


class OllamaEntry:
    """ASGI application of the listener.

    Args:
        app: The application behind it, which is running.
    """

    def __init__(self, app: Application) -> None:
        self._app = app

    def try_fast_path(self, call: RequestCycle) -> bool:
        """Serve a request of our own HTTP layer without a task; False means nothing was done."""
        call.scope = self._inner_scope(call.scope)
        return self._app.try_fast_path(call)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI scope (ASGI 3)."""
        if scope["type"] == "lifespan":  # that of the application is the main server's
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        await self._app(self._inner_scope(scope), receive, send)

    def _inner_scope(self, scope: Scope) -> Scope:
        """Return *scope* with the path at the application, unless it is there already."""
        extensions = scope.get("extensions") or {}
        if LISTENER in extensions:
            return scope
        proxy = self._app.proxy
        headers = with_guest_key(scope["headers"], proxy.admission.keys, proxy.options.ollama_key)
        found = {**scope, "headers": headers, "extensions": {**extensions, LISTENER: {}}}
        path = "/" + scope["path"].lstrip("/")  # a base URL may end with a slash
        if path.startswith(_SAME):
            return found
        raw = scope.get("raw_path") or scope["path"].encode()
        found["path"] = _PREFIX + path
        found["raw_path"] = _PREFIX.encode() + b"/" + raw.lstrip(b"/")
        return found
