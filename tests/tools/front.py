"""A proxy behind a socket, under the HTTP layer of this project, and a client of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from swapchart.adapters.http1.server.connection import ServerConnection
from swapchart.adapters.http1.server.connections import ConnectionManager
from swapchart.adapters.http1.server.hypercorn_protocol import H1Limits
from swapchart.adapters.proxy.accounting.request_record import RequestRecord
from swapchart.adapters.proxy.models.definitions import ModelDefinition

from .asgi import Bench, Received, proxied
from .loops import fastest_loop
from .net import wait_until_async

PATH = "/v1/chat/completions"


@dataclass
class Client:
    """One kept-alive connection to the proxy under our own HTTP layer."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def send(self, value: Any = None, *fields: str, path: str = PATH, version: str = "1.1") -> None:
        body = json.dumps({"model": "a", "n": 1} if value is None else value).encode()
        lines = [
            f"POST {path} HTTP/{version}",
            "Host: localhost",
            *fields,
            f"Content-Length: {len(body)}",
        ]
        self.writer.write("\r\n".join([*lines, "", ""]).encode() + body)

    async def head(self) -> tuple[int, dict[str, str]]:
        text = (await self.reader.readuntil(b"\r\n\r\n")).decode()
        first, *lines = text.rstrip().split("\r\n")
        pairs = (line.partition(": ") for line in lines)
        return int(first.split(" ")[1]), {name: value for name, _, value in pairs}

    async def response(self) -> tuple[int, bytes]:
        status, headers = await self.head()
        if "transfer-encoding" not in headers:
            return status, await self.reader.readexactly(int(headers["content-length"]))
        body = b""
        while size := int(await self.reader.readuntil(b"\r\n"), 16):
            body += (await self.reader.readexactly(size + 2))[:-2]
        await self.reader.readexactly(2)
        return status, body


@dataclass
class Front:
    """The proxy behind a socket.

    Attributes:
        bench: The proxy itself.
        hub: Connections of its clients.
        port: Where it listens.
        accepted: For each request that was offered to the fast path, whether it was accepted.
        finished: Records of finished requests.
        before_offer: Called before a request is offered.
    """

    bench: Bench
    hub: ConnectionManager
    port: int = 0
    accepted: list[bool] = field(default_factory=list)
    finished: list[RequestRecord] = field(default_factory=list)
    before_offer: Callable[[], object] = lambda: None

    @asynccontextmanager
    async def client(self) -> AsyncIterator[Client]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            yield Client(reader, writer)
        finally:
            writer.close()

    async def warm(self, client: Client, *fields: str) -> None:
        """Send a request with the same headers, so that the fast path accepts the next one."""
        client.send(None, *fields)
        assert (await client.response())[0] == 200
        self.accepted.clear()
        self.finished.clear()
        self.bench.server.received.clear()

    async def hold_request(self, client: Client) -> None:
        """Warm *client*, then send a request whose model never responds."""
        await self.warm(client)
        self.bench.server.respond = hold
        client.send()
        await wait_until_async(lambda: bool(self.bench.server.received))

    def assert_nothing_is_acquired(self) -> None:
        for name in ("a", "b"):
            assert self.bench.supervisor[name].in_flight == 0
            assert self.bench.supervisor.scheduler.services[name].granted == 0
        assert not self.bench.app.proxy.in_flight.open


def run(main: Callable[[Front], Awaitable[None]], *models: ModelDefinition, **options: Any) -> None:
    async def whole() -> None:
        async with proxied(*models, **options) as bench:
            loop = asyncio.get_running_loop()
            hub = ConnectionManager(loop, H1Limits(), lambda: False)
            front = Front(bench, hub)
            offer = bench.app.fast_path.try_fast_path

            def noted(call: Any) -> bool:
                front.before_offer()
                front.accepted.append(offer(call))
                return front.accepted[-1]

            bench.app.proxy.on_finished = front.finished.append
            server = await loop.create_server(
                lambda: ServerConnection(hub, bench.app, loop, try_fast_path=noted), "127.0.0.1", 0
            )
            front.port = server.sockets[0].getsockname()[1]
            async with server:
                await main(front)

    for factory in dict.fromkeys((fastest_loop(), asyncio.new_event_loop)):
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(asyncio.wait_for(whole(), 30))


async def hold(received: Received, writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(3600)
