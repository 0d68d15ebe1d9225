"""The composition root: a configuration becomes an ASGI application with its supervisor.

For any ASGI server::

    SWAPCHART_CONFIG=config.yaml hypercorn 'swapchart.adapters.asgi:create_app()'

The server's lifespan runs the supervisor: models are stopped, with their hooks, before the
server ends. ``swapchart serve`` does the same and more: it binds before anything starts, and
its end does not depend on the server's.
"""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from ..runtime import Supervisor, Transition
from .config import Config, load_config
from .http_client import HttpxClient
from .process import LocalLauncher
from .proxy.app import ProxyApp
from .proxy.asgi_types import Receive, Scope, Send
from .services import catalogue, queue_limits, service_specs

log = logging.getLogger(__name__)


class Application:
    """The proxy, and everything that lives as long as it.

    Args:
        config: Checked before.
        stop_limit_s: When it ends: so long for drains, hooks and grace periods, then kill.
    """

    def __init__(self, config: Config, *, stop_limit_s: float = 60.0) -> None:
        self.config = config
        self.supervisor: Supervisor | None = None
        self._proxy: ProxyApp | None = None
        self._stop_limit_s = stop_limit_s
        self._listeners: list[Callable[[Transition], None]] = []

    def listen(self, listener: Callable[[Transition], None]) -> None:
        """Call *listener* with every transition; before the application runs."""
        self._listeners.append(listener)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Supervisor]:
        """Run the supervisor for as long as the block lasts."""
        async with AsyncExitStack() as stack:
            launcher = await stack.enter_async_context(LocalLauncher(subreaper=True))
            supervisor = Supervisor(
                launcher, service_specs(self.config), http=HttpxClient(),
                queue=queue_limits(self.config), stop_limit_s=self._stop_limit_s,
            )  # fmt: skip
            await stack.enter_async_context(supervisor)
            for listener in self._listeners:
                supervisor.listen(listener)
            self._proxy = ProxyApp(supervisor, catalogue(self.config))
            stack.push_async_callback(self._proxy.aclose)
            self.supervisor = supervisor
            try:
                yield supervisor
            finally:
                self.supervisor = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Take one connection's scope; ASGI 3."""
        kind = scope["type"]
        if kind == "http":
            assert self._proxy is not None, "the lifespan has not begun"
            await self._proxy(scope, receive, send)
        elif kind == "lifespan":
            await self._lifespan(receive, send)
        elif kind == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008})

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        if self.supervisor is not None:  # `serve` runs it already, and outlives the server
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        try:
            async with self.running():
                await send({"type": "lifespan.startup.complete"})
                await receive()
        except Exception as error:
            log.exception("the lifespan failed")
            # An exception alone is not enough: hypercorn would go on without us.
            kind = "startup" if self.supervisor is None else "shutdown"
            await send({"type": f"lifespan.{kind}.failed", "message": str(error)})
            raise
        await send({"type": "lifespan.shutdown.complete"})


def create_app(config: str | os.PathLike[str] | None = None) -> Application:
    """Make the application from a configuration file.

    Args:
        config: The file; by default the one that the variable SWAPCHART_CONFIG names.

    Raises:
        ConfigProblems: The configuration has errors; all of them are in it.
        SystemExit: No file was named.
    """
    path = config or os.environ.get("SWAPCHART_CONFIG")
    if not path:
        raise SystemExit("expected a configuration file in SWAPCHART_CONFIG, found nothing")
    return Application(load_config([Path(path)]))
