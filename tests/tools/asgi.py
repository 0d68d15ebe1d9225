"""An ASGI client in the same process, and a proxy in front of an upstream that tells what it got.

The models are real processes (``sleep``), started and stopped by a real supervisor; only their
server is one of ours in the test's own event loop, so that what it was sent can be looked at.
"""

from __future__ import annotations

import asyncio
import json
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from swapchart.adapters.process import LocalLauncher
from swapchart.adapters.proxy.app import ProxyApp
from swapchart.adapters.proxy.models.catalog import ModelCatalog
from swapchart.adapters.proxy.models.definitions import ModelDefinition
from swapchart.adapters.proxy.options import ProxyOptions
from swapchart.adapters.store.activity import ActivityStore
from swapchart.runtime import (
    Command,
    EvictionPolicy,
    MemoryLedger,
    ServiceSpec,
    Supervisor,
    Timings,
    one_at_a_time,
)
from swapchart.runtime.ports import MemoryMeter

Fields = Sequence[tuple[str, str]]
App = Callable[..., Awaitable[None]]
_DEADLINE_S = 20.0


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer; names of fields in lower case."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key == name), None)

    def json(self) -> Any:
        return json.loads(self.body)

    def error(self) -> Any:
        """Return the error object, after looking at its envelope."""
        value = self.json()
        assert value["src"] == "swapchart"
        assert {"message", "type", "param", "code"} <= value["error"].keys()
        return value["error"]


class Call:
    """A request under way.

    Attributes:
        status: 0 until the head of the answer came.
        messages: Pieces of the body, as they were sent.
        is_complete: The last piece was marked so.
        task: Runs the application.
    """

    def __init__(self, app: App, scope: dict[str, Any], pieces: Iterable[bytes]) -> None:
        self.status = 0
        self.headers: tuple[tuple[str, str], ...] = ()
        self.messages: list[bytes] = []
        self.is_complete = False
        self._pieces = list(pieces)
        self._left = asyncio.Event()
        self._news = asyncio.Event()
        self._feed: asyncio.Queue[bytes | None] | None = None
        self.task = asyncio.get_running_loop().create_task(self._run(app, scope))

    async def _run(self, app: App, scope: dict[str, Any]) -> None:
        try:
            await app(scope, self._receive, self._send)
        finally:
            self._news.set()

    async def _receive(self) -> dict[str, Any]:
        if self._pieces:
            piece = self._pieces.pop(0)
            return {"type": "http.request", "body": piece, "more_body": bool(self._pieces)}
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            assert not self.status, "two heads of answers"
            self.status = message["status"]
            self.headers = tuple(
                (k.decode("ascii"), v.decode("latin-1")) for k, v in message["headers"]
            )
        else:
            assert self.status, "a body without a head"
            assert not self.is_complete, "more after the end"
            self.messages.append(message.get("body", b""))
            self.is_complete = not message.get("more_body", False)
        self._news.set()

    def leave(self) -> None:
        """Close the connection, as a client that gives up."""
        self._left.set()

    async def until(self, predicate: Callable[[Call], object]) -> None:
        """Wait until *predicate* is true of this call."""
        async with asyncio.timeout(_DEADLINE_S):
            while not predicate(self):
                if self.task.done():
                    self.task.result()
                    raise AssertionError(f"ended before that: {self.status} {self.body!r}")
                self._news.clear()
                await self._news.wait()

    @property
    def body(self) -> bytes:
        return b"".join(self.messages)

    async def answer(self) -> Answer:
        """Wait for the whole answer."""
        async with asyncio.timeout(_DEADLINE_S):
            await self.task
        assert self.is_complete, f"not ended: {self.status} {self.body!r}"
        return Answer(self.status, self.headers, self.body)


class Client:
    """Makes requests to an ASGI application.

    Attributes:
        headers: Sent with each request, unless it brings its own of that name.
        server: Address where the connection came in.
    """

    def __init__(self, app: App, *, server: tuple[str, int] = ("127.0.0.1", 8080)) -> None:
        self.app, self.server = app, server
        self.headers: dict[str, str] = {"host": "127.0.0.1:8080"}

    def begin(
        self, method: str, target: str, *, value: object = None, body: bytes | None = None,
        pieces: Iterable[bytes] | None = None, headers: Mapping[str, str] | Fields = (),
    ) -> Call:  # fmt: skip
        """Begin a request; *value* is sent as JSON, *pieces* as a body in several messages."""
        pairs = [*(headers.items() if isinstance(headers, Mapping) else headers)]
        fields = [(name.lower(), text) for name, text in pairs]
        names = {name for name, _ in fields}
        if value is not None:
            body = json.dumps(value).encode()
            if "content-type" not in names:
                fields.append(("content-type", "application/json"))
        sent = list(pieces) if pieces is not None else [body or b""]
        if body is not None and "content-length" not in names:
            fields.append(("content-length", str(len(body))))
        fields += [(n, t) for n, t in self.headers.items() if n not in names]
        path, _, query = target.partition("?")
        from urllib.parse import unquote

        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method,
            "scheme": "http", "path": unquote(path), "raw_path": path.encode("latin-1"),
            "query_string": query.encode(), "root_path": "", "server": self.server,
            "headers": [(n.encode(), t.encode("latin-1")) for n, t in fields],
            "client": ("127.0.0.1", 50000), "extensions": {},
        }  # fmt: skip
        return Call(self.app, scope, sent)

    async def call(self, method: str, target: str, **options: Any) -> Answer:
        """Make a request and wait for the whole answer."""
        return await self.begin(method, target, **options).answer()

    async def chat(self, model: str, **options: Any) -> Answer:
        """Ask *model* for a chat completion."""
        value = {"model": model, "messages": [{"role": "user", "content": "hi"}]}
        return await self.call("POST", "/v1/chat/completions", value=value, **options)


@dataclass(slots=True)
class Received:
    """A request that came to the upstream."""

    method: str
    target: str
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key == name), None)

    def json(self) -> Any:
        return json.loads(self.body)


Respond = Callable[[Received, StreamWriter], Awaitable[None]]


async def say_ok(received: Received, writer: StreamWriter) -> None:
    """Answer 200 with a little JSON."""
    await say(writer, b'{"ok":true}')


async def say(
    writer: StreamWriter, body: bytes, *, status: int = 200, kind: str = "application/json"
) -> None:
    """Answer with *body*, whole."""
    head = f"HTTP/1.1 {status} X\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    await writer.drain()


async def say_events(writer: StreamWriter, *events: bytes) -> None:
    """Answer with a stream of events, one chunk each."""
    writer.write(
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    for event in events:
        writer.write(b"%x\r\n%b\r\n" % (len(event), event))
        await writer.drain()
    writer.write(b"0\r\n\r\n")
    await writer.drain()


@dataclass(slots=True)
class Server:
    """A server of models that remembers what it was sent.

    Attributes:
        received: All requests, in order.
        respond: How it answers.
        port: Where it listens.
        gone: Connections that the other end closed in the middle of an exchange.
    """

    respond: Respond = say_ok
    received: list[Received] = field(default_factory=list)
    port: int = 0
    gone: int = 0
    _tasks: set[asyncio.Task[Any]] = field(default_factory=set)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def last(self) -> Received:
        return self.received[-1]

    async def _serve(self, reader: StreamReader, writer: StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            while True:
                received = await _read(reader)
                self.received.append(received)
                await self.respond(received, writer)
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            if not isinstance(error, asyncio.IncompleteReadError) or error.partial:
                self.gone += 1
        except asyncio.CancelledError:
            pass  # the test is over
        finally:
            self._tasks.discard(task)
            writer.close()


async def _read(reader: StreamReader) -> Received:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    lines = head.split("\r\n")
    method, target, _ = lines[0].split(" ")
    fields = []
    for line in lines[1:]:
        name, mark, value = line.partition(":")
        if mark:
            fields.append((name.lower(), value.strip()))
    found = dict(fields)
    body = b""
    if found.get("transfer-encoding") == "chunked":
        while size := int(await reader.readuntil(b"\r\n"), 16):
            body += (await reader.readexactly(size + 2))[:-2]
        await reader.readexactly(2)
    elif "content-length" in found:
        body = await reader.readexactly(int(found["content-length"]))
    return Received(method, target, tuple(fields), body)


@asynccontextmanager
async def serving(respond: Respond = say_ok) -> AsyncIterator[Server]:
    """Run a server of models."""
    up = Server(respond)
    listener = await asyncio.start_server(up._serve, "127.0.0.1", 0)
    up.port = listener.sockets[0].getsockname()[1]
    try:
        yield up
    finally:
        listener.close()
        for task in list(up._tasks):
            task.cancel()
        await asyncio.gather(*up._tasks, return_exceptions=True)
        await listener.wait_closed()


def idle_model(name: str, endpoint: str, **more: Any) -> ServiceSpec:
    """Return a service whose process only sleeps, and whose server is at *endpoint*."""
    timings = more.pop("timings", Timings(drain_limit=5.0, grace=2.0))
    return ServiceSpec(
        name=name, command=Command(argv=("sleep", "1000"), label=name), endpoint=endpoint,
        timings=timings, **more,
    )  # fmt: skip


@dataclass(slots=True)
class Bench:
    """A proxy in front of one server that plays all models.

    Attributes:
        client: Asks the proxy.
        server: Plays the models.
        app: The proxy.
        supervisor: Runs them.
    """

    client: Client
    server: Server
    app: ProxyApp
    supervisor: Supervisor


@asynccontextmanager
async def proxied(
    *cards: ModelDefinition | str, respond: Respond = say_ok, options: ProxyOptions | None = None,
    specs: Callable[[ServiceSpec], ServiceSpec] = lambda spec: spec,
    activity: ActivityStore | None = None, policy: EvictionPolicy = one_at_a_time,
    memory: MemoryLedger | None = None, meter: MemoryMeter | None = None,
    **catalog: Any,
) -> AsyncIterator[Bench]:  # fmt: skip
    """Run a proxy for *cards* (by default models ``a`` and ``b``).

    Args:
        cards: Models, or names of such.
        respond: How the models' server answers.
        options: How the proxy behaves.
        specs: Changes the services on their way in.
        activity: Where finished requests are written down.
        policy: Which services are stopped for which.
        memory: Memory pools.
        meter: Reads them.
        catalog: Further arguments of `ModelCatalog`.
    """
    known = [ModelDefinition(id=c) if isinstance(c, str) else c for c in cards or ("a", "b")]
    async with serving(respond) as server, LocalLauncher() as launcher:
        services = [specs(idle_model(card.id, server.url)) for card in known]
        async with Supervisor(
            launcher, services, stop_limit_s=10.0, policy=policy, memory=memory, meter=meter
        ) as supervisor:
            models = ModelCatalog(known, **catalog)
            app = ProxyApp(supervisor, models, options, activity=activity)
            try:
                yield Bench(Client(app), server, app, supervisor)
            finally:
                await app.aclose()


def run_proxied(
    main: Callable[[Bench], Awaitable[None]], *cards: ModelDefinition | str, **options: Any
) -> None:
    """Run *main* with a proxy as `proxied` makes it, on an event loop of its own."""

    async def whole() -> None:
        async with proxied(*cards, **options) as bench:
            await main(bench)

    asyncio.run(whole())
