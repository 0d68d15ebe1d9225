"""The two ASGI servers, hypercorn and uvicorn, configured for this proxy."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import socket
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from ...runtime.fence import kept
from ..app.application import Application
from ..http1.freed_memory import return_freed_soon
from ..http1.server.hypercorn_protocol import H1Limits, patched_hypercorn
from ..http1.server.stock import guarded_uvicorn
from ..http1.server.uvicorn_protocol import uvicorn_protocol
from ..http1.server.websocket import UvicornWebsocket, hypercorn_websockets
from ..proxy.forwarding.forwarding import ResponseAbortedError

if TYPE_CHECKING:
    import uvicorn
from .listen import _BACKLOG
from .ollama_entry import OllamaEntry
from .options import ServeOptions

#: An application that can be served.
Served: TypeAlias = Application | OllamaEntry
#: Allocations between collections of the young generation, and rounds between those of the older.
_COLLECTOR = (50_000, 20, 50)


def _tame_collector() -> None:
    """Freeze the objects made at the start, return what it freed, and collect garbage less often.

    A request leaves no cycles behind, but its many small objects made the collector walk through
    all modules again and again: a tenth of the CPU time, and pauses of 30 ms.
    """
    gc.freeze()
    gc.enable()
    return_freed_soon()
    gc.set_threshold(*_COLLECTOR)


class _Known(logging.Filter):
    """Removes errors that we have logged already from a server's log.

    A response that is aborted must leave the application as an exception: only then does the
    server abort the connection too, instead of ending the response as if it were complete.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Return True if *record* was not logged before."""
        error = record.exc_info[1] if record.exc_info else None
        return not isinstance(error, ResponseAbortedError | asyncio.CancelledError)


def _logger(name: str) -> logging.Logger:
    logger = logging.getLogger(name)
    logger.addFilter(_Known())
    return logger


async def _hypercorn(
    app: Served, sock: socket.socket, stopping: asyncio.Event, options: ServeOptions,
) -> None:  # fmt: skip
    _tame_collector()
    with patched_hypercorn(H1Limits(), is_stock=options.is_stock), hypercorn_websockets():
        await _hypercorn_beside(app, sock, stopping, options)


async def _hypercorn_beside(
    app: Served, sock: socket.socket, stopping: asyncio.Event, options: ServeOptions,
) -> None:  # fmt: skip
    """Serve by hypercorn, which is prepared already, beside another server in this process."""
    from hypercorn.asyncio import serve
    from hypercorn.config import Config

    limits = H1Limits()

    class Announcing(Config):
        def response_headers(self, protocol: str) -> list[tuple[bytes, bytes]]:
            announced = (b"keep-alive", b"timeout=%d" % limits.keep_alive_s)
            return [*super().response_headers(protocol), announced]

    config = Announcing() if options.is_stock else Config()
    config.bind = [f"fd://{sock.detach()}"]
    config.backlog = _BACKLOG  # it calls listen() again, and would reduce our backlog to 100
    config.graceful_timeout = options.stop_limit_s
    config.include_server_header = False
    config.include_date_header = False
    config.keep_alive_max_requests = 1 << 31
    config.keep_alive_timeout = limits.keep_alive_s + limits.keep_alive_spare_s
    config.ssl_handshake_timeout = limits.header_timeout_s
    config.errorlog = _logger("hypercorn.error")
    if options.certificate is not None:
        config.certfile, config.keyfile = map(str, options.certificate)
        config.alpn_protocols = ["http/1.1"]  # our limits do not cover HTTP/2
    _logger("swapchart.h1")
    trigger: Callable[[], Awaitable[object]] = stopping.wait
    framework: Any = app
    await serve(framework, config, shutdown_trigger=trigger, mode="asgi")


def uvicorn_config(
    app: Served, options: ServeOptions, is_draining: Callable[[], bool]
) -> uvicorn.Config:
    """Return the configuration of uvicorn, with no middleware between our layer and *app*."""
    import uvicorn

    framework: Any = app
    certificate, key = options.certificate or (None, None)
    limits = H1Limits()
    protocol: Any = uvicorn_protocol(limits, is_draining)
    headers: list[tuple[str, str]] = []
    if options.is_stock:
        protocol = guarded_uvicorn(limits) or "auto"
        headers.append(("keep-alive", f"timeout={limits.keep_alive_s:.0f}"))
    return uvicorn.Config(
        framework, ssl_certfile=certificate, ssl_keyfile=key, backlog=_BACKLOG, log_level="warning",
        access_log=False, server_header=False, date_header=False,
        timeout_graceful_shutdown=int(options.stop_limit_s),
        timeout_keep_alive=int(limits.keep_alive_s + limits.keep_alive_spare_s),
        ws=UvicornWebsocket,
        http=protocol, headers=headers,
        proxy_headers=False,  # `trustedProxies` decides which forwarded headers count
    )  # fmt: skip


async def _uvicorn(
    app: Served, sock: socket.socket, stopping: asyncio.Event, options: ServeOptions
) -> None:
    _tame_collector()
    await _uvicorn_beside(app, sock, stopping, options)


async def _uvicorn_beside(
    app: Served, sock: socket.socket, stopping: asyncio.Event, options: ServeOptions
) -> None:
    """Serve by uvicorn beside another server in this process."""
    import uvicorn

    server = uvicorn.Server(uvicorn_config(app, options, stopping.is_set))
    _logger("uvicorn.error")
    _logger("swapchart.h1")
    server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign, assignment]

    async def end() -> None:
        await stopping.wait()
        server.should_exit = True

    watcher = asyncio.get_running_loop().create_task(kept(end))
    try:
        await server.serve(sockets=[sock])
    finally:
        watcher.cancel()


_SERVERS = {"hypercorn": _hypercorn, "uvicorn": _uvicorn}
#: The same for a further socket, while the first one is served.
_BESIDE = {"hypercorn": _hypercorn_beside, "uvicorn": _uvicorn_beside}


def servers() -> Sequence[str]:
    """Return the names of the supported servers that are installed."""
    return tuple(_SERVERS)
