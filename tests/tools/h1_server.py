"""A real server in a thread of its own, with our protocol inside, and a scripted application."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import hypercorn.asyncio
import hypercorn.config
import uvicorn

from swapchart.adapters.http1.server.hypercorn_protocol import H1Limits, patched_hypercorn
from swapchart.adapters.http1.server.request_cycle import RequestCycle
from swapchart.adapters.http1.server.uvicorn_protocol import uvicorn_protocol
from tools.loops import fastest_loop, new_loop
from tools.net import LONG_S, wait_until
from tools.raw import Connection
from tools.tls import certificate, trusted_tls

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
Handler = Callable[["Call"], Awaitable[None]]

#: Where our protocol runs: inside hypercorn and inside uvicorn, on both loops.
PLACES = ("asyncio", "uvloop", "uvicorn", "uvicorn, asyncio")


@dataclass
class Call:
    """One request as the application saw it.

    Attributes:
        scope: Its scope.
        receive: As given.
        send: As given.
        body: What ``read`` collected.
        events: Whatever the handler notes, and ``disconnect`` or the error it ended with.
    """

    scope: dict[str, Any]
    receive: Receive
    send: Send
    body: bytes = b""
    events: list[Any] = field(default_factory=list)

    async def read(self) -> bytes:
        """Collect the body."""
        pieces = []
        while True:
            message = await self.receive()
            if message["type"] == "http.disconnect":
                self.events.append("disconnect")
                raise ConnectionError("the client left while it sent")
            pieces.append(message["body"])
            if not message["more_body"]:
                self.body = b"".join(pieces)
                return self.body

    async def answer(
        self, body: bytes = b"ok", *, status: int = 200, headers: tuple[Any, ...] = ()
    ) -> None:
        """Answer with a body in one piece."""
        await self.start(status=status, headers=headers)
        await self.piece(body, more=False)

    async def start(self, *, status: int = 200, headers: tuple[Any, ...] = ()) -> None:
        """Send the head."""
        await self.send({"type": "http.response.start", "status": status, "headers": headers})

    async def piece(self, body: bytes, *, more: bool = True) -> None:
        """Send a piece of the body."""
        await self.send({"type": "http.response.body", "body": body, "more_body": more})


async def plain(call: Call) -> None:
    """Read the body, say ok."""
    await call.read()
    await call.answer()


class Server:
    """A running server, and the requests that its application received.

    Args:
        where: One of ``PLACES``; with ``, tls`` behind it over TLS, with ``, stock`` by the
            server's own layer.
        limits: Of our protocol.
        grace_s: How long requests in flight have at the end; None is what the server's default is.
        config: For the server's own configuration.

    Attributes:
        where: As given.
        port: Where it listens.
        calls: All requests that reached the application, in order.
        handlers: By path; others get ``plain``.
        is_patched: Our protocol is in place.
        draining: Set to let every answer say ``Connection: close``.
        offered: Requests that were offered to be served without a task.
        on_offer: Answers them, or returns False.
        uvicorn: The server, where it is uvicorn.
    """

    def __init__(
        self, where: str, limits: H1Limits, *, grace_s: float | None = None, **config: Any
    ) -> None:
        self.where = where
        self.calls: list[Call] = []
        self.handlers: dict[str, Handler] = {}
        self.is_patched = False
        self.draining = threading.Event()
        self.offered: list[RequestCycle] = []
        self.uvicorn: uvicorn.Server | None = None
        self.on_offer: Callable[[RequestCycle], bool] = lambda exchange: False
        self._tls = trusted_tls() if "tls" in where else None
        if "stock" in where:  # each is what only the server's own layer does
            config |= {"server_header": True} if "uvicorn" in where else {"max_requests": 1 << 30}
        self._limits, self._config, self._grace_s = limits, config, grace_s
        named = [name for name in ("asyncio", "uvloop") if name in where]
        self._new_loop = new_loop(named[0]) if named else fastest_loop()
        self._serve = self._serve_uvicorn if "uvicorn" in where else self._serve_hypercorn
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port: int = self._socket.getsockname()[1]
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._up = threading.Event()
        self.error: BaseException | None = None
        self.thread = threading.Thread(target=self._run)

    def start(self) -> None:
        """Start serving."""
        self.thread.start()
        assert self._up.wait(LONG_S)

    def stop(self, timeout_s: float = LONG_S) -> None:
        """Shut down, and wait for it."""
        self.begin_stop()
        self.thread.join(timeout_s)
        assert not self.thread.is_alive(), "the server did not stop"
        self._socket.close()

    def begin_stop(self) -> None:
        """Ask for shutdown."""
        assert self._loop is not None
        assert self._stop is not None
        if self.thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)

    def do(self, call: Callable[[], object]) -> None:
        """Call something in the server's loop."""
        assert self._loop is not None
        self._loop.call_soon_threadsafe(call)

    def connect(self, *, timeout_s: float = LONG_S) -> Connection:
        """Open a raw connection."""
        client = Connection(self.port, timeout_s=timeout_s)
        if self._tls is not None:
            client.socket = self._tls.wrap_socket(client.socket, server_hostname="localhost")
        return client

    def wait_call(self, count: int = 1) -> Call:
        """Wait until *count* requests reached the application; returns the last of them."""
        wait_until(lambda: len(self.calls) >= count, what=f"{count} calls")
        return self.calls[count - 1]

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=self._new_loop) as runner:
                runner.run(self._serve())
        except BaseException as exc:  # noqa: BLE001 - shown by the fixture
            self.error = exc
        finally:
            self._up.set()

    async def _serve_hypercorn(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        config = hypercorn.config.Config()
        config.bind = [f"fd://{self._socket.detach()}"]
        config.errorlog = None
        if self._grace_s is not None:
            config.graceful_timeout = self._grace_s
        if self._tls is not None:
            config.certfile = config.keyfile = str(certificate())
            config.alpn_protocols = ["http/1.1"]
        for name, value in self._config.items():
            setattr(config, name, value)
        with patched_hypercorn(self._limits, self.draining.is_set) as self.is_patched:
            await hypercorn.asyncio.serve(self, config, shutdown_trigger=self._stop.wait)

    async def _serve_uvicorn(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        protocol = uvicorn_protocol(self._limits, self.draining.is_set)
        options: dict[str, Any] = {
            "access_log": False, "server_header": False, "proxy_headers": False, "ws": "wsproto",
            "log_config": None, "http": protocol, "timeout_graceful_shutdown": self._grace_s,
            **self._config,
        }  # fmt: skip
        if self._tls is not None:
            options["ssl_certfile"] = options["ssl_keyfile"] = str(certificate())
        self.is_patched = True
        server = self.uvicorn = uvicorn.Server(uvicorn.Config(self, **options))
        serving = asyncio.create_task(server.serve([self._socket]))
        await self._stop.wait()
        server.should_exit = True
        await serving

    def try_fast_path(self, exchange: RequestCycle) -> bool:
        """Take what may go the short way."""
        self.offered.append(exchange)
        return self.on_offer(exchange)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve as an ASGI application."""
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.complete"})
            self._up.set()
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        call = Call(scope, receive, send)
        self.calls.append(call)
        try:
            await self.handlers.get(scope["path"], plain)(call)
        except BaseException as exc:
            call.events.append(exc)
            raise


@contextmanager
def serving(where: str, limits: H1Limits | None = None, **more: Any) -> Iterator[Server]:
    """Run a server for the time of the context; see ``Server``."""
    server = Server(where, limits or H1Limits(), **more)
    server.start()
    try:
        yield server
    finally:
        server.stop()
        if server.error is not None:
            raise server.error


def trickle(client: Connection, data: bytes) -> None:
    """Send *data* byte by byte, each in a segment of its own."""
    client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for value in data:
        client.send(bytes((value,)))
