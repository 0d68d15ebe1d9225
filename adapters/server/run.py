"""Serves the application: binds first, ends in bounded time, leaves nothing behind.

The server in front is hypercorn or uvicorn, run by its API in our own event loop. Our end does
not depend on its end: models are stopped by us, and a server that hangs on a stalled reader is
left behind.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
import socket
import ssl
import sys
import threading
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...runtime.fence import kept
from ..app.application import Application
from ..http1.server.hypercorn_protocol import H1Limits, patched_hypercorn
from ..http1.server.stock import guarded_uvicorn
from ..http1.server.uvicorn_protocol import uvicorn_protocol
from ..http1.server.websocket import UvicornWebsocket, hypercorn_websockets
from ..process import procfs
from ..proxy.forwarding.forward import BrokenOffError
from ..system import name_lookup
from .systemd import Notifier

if TYPE_CHECKING:
    import uvicorn

log = logging.getLogger(__name__)

_BACKLOG = 2048
#: A client that vanished, or gave up a close that our full window held back, is found out in 2 min.
_ALIVE_S = (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 15), ("TCP_KEEPCNT", 4))
_READER_LIMIT_MS = 60_000  # a client that takes no byte for so long is cut by the kernel
_SERVER_LIMIT_S = 3.0  # after the models are gone, the server gets so long to end
_EXIT_LIMIT_S = 5.0
#: Objects made until the collector looks at the young ones, and rounds until it looks at the older.
_COLLECTOR = (50_000, 20, 50)


class BindError(Exception):
    """The address to listen on could not be had; the text says which and why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeOptions:
    """How to serve.

    Attributes:
        server: ``hypercorn`` or ``uvicorn``.
        is_stock: Speak HTTP/1.1 by the server's own layer instead of ours.
        certificate: Files of a certificate chain and its key: speak HTTPS. None: clear text.
        stop_limit_s: From the first SIGTERM: so long for requests in flight, hooks and grace.
        on_listening: Called with the URL once clients can connect.
    """

    server: str = "hypercorn"
    is_stock: bool = False
    certificate: tuple[Path, Path] | None = None
    stop_limit_s: float = 60.0
    on_listening: Callable[[str], None] = lambda url: None


def parse_address(text: str) -> tuple[str, int]:
    """Split ``host:port``, ``[::1]:port`` or ``:port`` (all interfaces).

    Raises:
        BindError: It is none of these.
    """
    host, mark, port = text.rpartition(":")
    if not mark or not port.isdigit() or int(port) > 65535:
        raise BindError(f"expected HOST:PORT to listen on, such as 127.0.0.1:8080, got {text!r}")
    return host.strip("[]") or "0.0.0.0", int(port)


def is_loopback(host: str) -> bool:
    """Tell whether only this machine can reach *host*."""
    return host == "localhost" or host.startswith("127.") or host == "::1"


def bind(address: str) -> socket.socket:
    """Bind and listen before anything else is started.

    Raises:
        BindError: The address is taken, or not one of this machine.
    """
    host, port = parse_address(address)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with contextlib.suppress(OSError, AttributeError):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _READER_LIMIT_MS)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)  # of those it accepts, too
            for name, value in _ALIVE_S:
                sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        sock.bind((host, port))
        sock.listen(_BACKLOG)
        sock.setblocking(False)
    except (OSError, UnicodeError) as error:
        sock.close()
        raise BindError(f"cannot listen on {address}: {error}") from error
    return sock


def check_certificate(certificate: Path | None, key: Path | None) -> tuple[Path, Path] | None:
    """Return both files, or None where neither was named.

    Raises:
        BindError: Only one was named, or they are no certificate and its key.
    """
    if certificate is None and key is None:
        return None
    if certificate is None or key is None:
        found = "--tls-key-file" if certificate is None else "--tls-cert-file"
        raise BindError(f"expected --tls-cert-file and --tls-key-file, got {found} only")
    try:
        for path in (certificate, key):
            path.open("rb").close()  # OpenSSL does not say which it could not read
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(
            certificate, key, password=""
        )
    except ssl.SSLError as error:
        raise BindError(
            f"{certificate} and {key} are no certificate and its key: {error}"
        ) from error
    except OSError as error:
        raise BindError(f"the certificate cannot be read: {error}") from error
    return certificate, key


def url_of(sock: socket.socket, scheme: str = "http") -> str:
    """Return the URL under which *sock* is reached from here."""
    host, port = sock.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def run(app: Application, sock: socket.socket, options: ServeOptions) -> int:
    """Serve until a signal comes; returns the exit code.

    Our limit of open files is raised to what the system allows; models get the old one.
    """
    procfs.raise_nofile_limit()
    with asyncio.Runner(loop_factory=name_lookup.loop_factory()) as runner:
        code = runner.run(_serve(app, sock, options))
        _leave_soon(code)
    return code


def _tame_collector() -> None:
    """Take what was made at the start out of the collector's sight, and let it look less often.

    A request leaves nothing in cycles behind, but its many small objects made the collector walk
    through all the modules again and again: a tenth of the CPU time, and pauses of 30 ms.
    """
    gc.freeze()
    gc.set_threshold(*_COLLECTOR)


def _leave_soon(code: int) -> None:
    """Exit even if something of the server's hangs: the models are gone by now."""

    def leave() -> None:
        sys.stderr.flush()
        os._exit(code)

    timer = threading.Timer(_EXIT_LIMIT_S, leave)
    timer.daemon = True
    with contextlib.suppress(RuntimeError):  # no thread can be made
        timer.start()


class _Known(logging.Filter):
    """Keeps out of a server's log what we have told already, without a traceback.

    An answer that breaks off in the middle must leave the application as an exception: only then
    does the server break off too, instead of ending the answer as if it were whole.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Tell whether *record* is news."""
        error = record.exc_info[1] if record.exc_info else None
        return not isinstance(error, BrokenOffError | asyncio.CancelledError)


def _hush(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Take what a server complains about that is left behind: we have said why already."""
    log.debug("left behind: %s", context.get("message"), exc_info=context.get("exception"))


def _logger(name: str) -> logging.Logger:
    logger = logging.getLogger(name)
    logger.addFilter(_Known())
    return logger


async def _serve(app: Application, sock: socket.socket, options: ServeOptions) -> int:
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    hurry = asyncio.Event()
    notifier = Notifier()

    async with app.running() as supervisor:

        def on_signal() -> None:
            if not stopping.is_set():
                notifier.tell("STOPPING=1")
                log.info("stopping: requests in flight are finished, models are stopped")
                stopping.set()
            elif not hurry.is_set():
                log.warning("asked again: killing what is left")
                hurry.set()

        async def kill_when_hurried() -> None:
            await hurry.wait()
            supervisor.kill()

        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, on_signal)
        loop.add_signal_handler(signal.SIGHUP, app.ask_reload, "SIGHUP")
        start = _SERVERS[options.server]
        server = loop.create_task(start(app, sock, stopping, options))
        options.on_listening(url_of(sock, "http" if options.certificate is None else "https"))
        notifier.tell("READY=1")
        living = loop.create_task(kept(notifier.live))
        asked = loop.create_task(kept(stopping.wait))
        killer = loop.create_task(kept(kill_when_hurried))
        await asyncio.wait({server, asked}, return_when=asyncio.FIRST_COMPLETED)
        failed = server.done() and not stopping.is_set()
        stopping.set()
        app.end_streams()
        await supervisor.shutdown(supervisor.stop_limit_s)
        await asyncio.wait({server}, timeout=0.5 if hurry.is_set() else _SERVER_LIMIT_S)
        if not server.done():
            log.warning("clients are left that neither read nor leave: cutting them off")
            loop.set_exception_handler(_hush)
            server.cancel()
        elif (error := server.exception()) is not None:
            log.error("the server failed: %r", error)
            failed = True
        for task in (asked, killer, living):
            task.cancel()
    return 1 if failed else 0


async def _hypercorn(
    app: Application, sock: socket.socket, stopping: asyncio.Event, options: ServeOptions
) -> None:
    from hypercorn.asyncio import serve
    from hypercorn.config import Config

    limits = H1Limits()

    class Announcing(Config):
        def response_headers(self, protocol: str) -> list[tuple[bytes, bytes]]:
            announced = (b"keep-alive", b"timeout=%d" % limits.keep_alive_s)
            return [*super().response_headers(protocol), announced]

    config = Announcing() if options.is_stock else Config()
    config.bind = [f"fd://{sock.detach()}"]
    config.backlog = _BACKLOG  # it listens once more, and would cut ours down to 100
    config.graceful_timeout = options.stop_limit_s
    config.include_server_header = False
    config.include_date_header = False
    config.keep_alive_max_requests = 1 << 31
    config.keep_alive_timeout = limits.keep_alive_s + limits.keep_alive_spare_s
    config.ssl_handshake_timeout = limits.header_timeout_s
    config.errorlog = _logger("hypercorn.error")
    if options.certificate is not None:
        config.certfile, config.keyfile = map(str, options.certificate)
        config.alpn_protocols = ["http/1.1"]  # HTTP/2 is refused: our limits know nothing of it
    _logger("swapchart.h1")
    trigger: Callable[[], Awaitable[object]] = stopping.wait
    framework: Any = app
    _tame_collector()
    with patched_hypercorn(limits, is_stock=options.is_stock), hypercorn_websockets():
        await serve(framework, config, shutdown_trigger=trigger, mode="asgi")


def uvicorn_config(
    app: Application, options: ServeOptions, is_draining: Callable[[], bool]
) -> uvicorn.Config:
    """Return how uvicorn is to serve: with nothing of its own between our layer and *app*."""
    import uvicorn

    certificate, key = options.certificate or (None, None)
    limits = H1Limits()
    protocol: Any = uvicorn_protocol(limits, is_draining)
    headers: list[tuple[str, str]] = []
    if options.is_stock:
        protocol = guarded_uvicorn(limits) or "auto"
        headers.append(("keep-alive", f"timeout={limits.keep_alive_s:.0f}"))
    return uvicorn.Config(
        app, ssl_certfile=certificate, ssl_keyfile=key, backlog=_BACKLOG, log_level="warning",
        access_log=False, server_header=False, date_header=False,
        timeout_graceful_shutdown=int(options.stop_limit_s),
        timeout_keep_alive=int(limits.keep_alive_s + limits.keep_alive_spare_s),
        ws=UvicornWebsocket,
        http=protocol, headers=headers,
        proxy_headers=False,  # whose word counts about a client, the configuration says
    )  # fmt: skip


async def _uvicorn(
    app: Application, sock: socket.socket, stopping: asyncio.Event, options: ServeOptions
) -> None:
    import uvicorn

    server = uvicorn.Server(uvicorn_config(app, options, stopping.is_set))
    _logger("uvicorn.error")
    _logger("swapchart.h1")
    server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign, assignment]

    async def end() -> None:
        await stopping.wait()
        server.should_exit = True

    watcher = asyncio.get_running_loop().create_task(kept(end))
    _tame_collector()
    try:
        await server.serve(sockets=[sock])
    finally:
        watcher.cancel()


_SERVERS = {"hypercorn": _hypercorn, "uvicorn": _uvicorn}


def servers() -> Sequence[str]:
    """Return the names of the servers we can run under."""
    return tuple(_SERVERS)
