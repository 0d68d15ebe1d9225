"""Differential test of the fast path: whatever it serves, the regular path would have served alike.

Two proxies with the same configuration get the same bytes from a client on a socket, and the same
responses from an upstream on another. The first offers requests to its fast path. The second is
connected without one, as a server does whose application has none. Responses, what the upstream
received, request records, activity rows, metrics, and events of the chart must be equal.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tools.asgi import Bench, Received, proxied
from tools.loops import fastest_loop
from tools.net import wait_until_async

from swapchart.adapters.http1.server.connection import ServerConnection
from swapchart.adapters.http1.server.connections import ConnectionManager
from swapchart.adapters.http1.server.hypercorn_protocol import H1Limits
from swapchart.adapters.proxy.access.header_cache import HeaderCache
from swapchart.adapters.proxy.accounting.request_record import RequestRecord
from swapchart.adapters.proxy.models.definitions import (
    ModelDefinition,
    SelectorDefinition,
    UpstreamTimeouts,
)
from swapchart.adapters.proxy.options import ApiKey, ProxyOptions
from swapchart.adapters.store.activity import ActivityQuery, ActivityStore
from swapchart.adapters.store.activity_schema import MIGRATIONS
from swapchart.adapters.store.database import Database
from swapchart.runtime import Transition

CHAT = "/v1/chat/completions"
_USAGE = b'{"ok":true,"usage":{"prompt_tokens":3,"completion_tokens":2}}'
_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
_EVENTS = b'data: {"n":1}\n\ndata: {"usage":{"prompt_tokens":4,"completion_tokens":5}}\n\n'
_IDS = re.compile(r"[0-9a-f]{8}-[0-9a-f]+")
_LARGE = b'{"x":"' + b"y" * 40_000 + b'"}'


def _whole(body: bytes, head: bytes = _HEAD) -> bytes:
    return head + b"Content-Length: %d\r\n\r\n" % len(body) + body


def _chunked(body: bytes, kind: bytes = b"application/json") -> bytes:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\nTransfer-Encoding: chunked\r\n\r\n" % kind
    return head + b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)


#: Name -> what the upstream sends, and whether it closes the connection then. A request chooses
#: by the member ``say`` of its body.
SCRIPTS: dict[str, tuple[bytes, bool]] = {
    "usage": (_whole(_USAGE), False),
    "events": (_chunked(_EVENTS, b"text/event-stream"), False),
    "chunked": (_chunked(_USAGE), False),
    "until close": (_HEAD + b"\r\n" + _USAGE, True),
    "old": (_whole(_USAGE, _HEAD.replace(b"1.1", b"1.0")), True),
    "closing": (_whole(_USAGE, _HEAD + b"Connection: close\r\n"), True),
    "error": (_whole(b'{"error":{"message":"bad"}}', b"HTTP/1.1 500 Bad\r\n"), False),
    "unavailable": (_whole(b"busy", b"HTTP/1.1 503 X\r\nRetry-After: 3\r\n"), False),
    "empty": (_whole(b""), False),
    "no content": (b"HTTP/1.1 204 No Content\r\n\r\n", False),
    "moved": (_whole(b"", b"HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\n"), False),
    "gzip": (_whole(gzip.compress(_USAGE, mtime=0), _HEAD + b"Content-Encoding: gzip\r\n"), False),
    "unknown coding": (_whole(b"??", _HEAD + b"Content-Encoding: zz\r\n"), False),
    "hop-by-hop": (
        _whole(_USAGE, _HEAD + b"Connection: X-Hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\n"),
        False,
    ),
    "odd": (
        _whole(_USAGE, _HEAD + b"SET-Cookie: a=1\r\nSet-Cookie: b=2\r\nX-Latin: \xe9 \r\nX-E:\r\n"),
        False,
    ),
    "cross-origin": (_whole(_USAGE, _HEAD + b"Access-Control-Allow-Origin: *\r\n"), False),
    "interim": (b"HTTP/1.1 103 Early\r\nLink: </a>\r\n\r\n" + _whole(_USAGE), False),
    "large": (_whole(_LARGE), False),
    "trailing": (_whole(_USAGE) + b"more than announced", True),
    "nothing": (b"", True),
    "garbage": (b"no HTTP at all\r\n\r\n", True),
    "two lengths": (_HEAD + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab", True),
    "short": (_HEAD + b"Content-Length: 9\r\n\r\nabc", True),
    "short chunk": (_chunked(_USAGE)[:-9], True),
}
_SILENT = b'{"model":"timed","say":"silent"}'


async def respond(received: Received, writer: asyncio.StreamWriter) -> None:
    """Respond as the request's body asks for, else with `_USAGE`."""
    try:
        value = json.loads(received.body)
        name = value.get("say", "usage") if isinstance(value, dict) else "usage"
    except ValueError:
        name = "usage"
    if name == "silent":
        await asyncio.Event().wait()  # until the proxy has waited long enough
    data, closes = SCRIPTS[name]
    if received.method == "HEAD":
        data = data[: data.find(b"\r\n\r\n") + 4]
    writer.write(data)
    await writer.drain()
    if closes:
        writer.close()
        raise ConnectionResetError("the script ends the connection")


# ---- requests
@dataclass(frozen=True)
class Sent:
    """One request as it goes over the wire.

    Attributes:
        method: Of the request line.
        target: Of the request line.
        version: ``1.0`` or ``1.1``.
        headers: In order, without those that frame the body.
        body: Sent with a Content-Length, or in chunks.
        chunk: Size of the chunks in bytes; 0 means Content-Length.
        is_split: Headers and body are sent apart.
    """

    method: str = "POST"
    target: str = CHAT
    version: str = "1.1"
    headers: tuple[tuple[bytes, bytes], ...] = ((b"Host", b"localhost"),)
    body: bytes = b'{"model":"a"}'
    chunk: int = 0
    is_split: bool = False

    def pieces(self) -> tuple[bytes, ...]:
        """Return the bytes of the request, in one or two writes."""
        lines = [f"{self.method} {self.target} HTTP/{self.version}".encode("latin-1")]
        lines += [name + b": " + value for name, value in self.headers]
        body = self.body
        if self.chunk:
            lines.append(b"Transfer-Encoding: chunked")
            parts = [body[at : at + self.chunk] for at in range(0, len(body), self.chunk)]
            body = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"
        elif body or self.method == "POST":
            lines.append(b"Content-Length: %d" % len(body))
        head = b"\r\n".join([*lines, b"", b""])
        return (head, body) if self.is_split else (head + body,)


_HEADERS = [
    (b"X-Mine", b"1"), (b"X-Mine", b""), (b"x-mine", b"two"), (b"X-Latin", b"\xe9\xff"),
    (b"X-Long", b"z" * 5000), (b"Connection", b"X-Mine"), (b"Connection", b"close"),
    (b"Connection", b"keep-alive"), (b"Keep-Alive", b"timeout=1"), (b"TE", b"trailers"),
    (b"Trailer", b"X-T"), (b"Upgrade", b"h2c"), (b"Proxy-Authorization", b"Basic eDp5"),
    (b"Proxy-Connection", b"keep-alive"), (b"Via", b"1.1 elsewhere"), (b"Via", b"1.1 swapchart-me"),
    (b"X-Forwarded-For", b"10.0.0.1"), (b"Forwarded", b"for=10.0.0.1"), (b"Cookie", b"a=1; b=2"),
    (b"Accept", b"text/html"), (b"Accept", b"text/plain"), (b"Accept-Encoding", b"gzip"),
    (b"Content-Type", b"application/json"), (b"Content-Type", b"text/plain"),
    (b"Content-Type", b"application/x-www-form-urlencoded"), (b"Content-Encoding", b"gzip"),
    (b"Content-Type", b"multipart/form-data; boundary=b"), (b"Expect", b"100-continue"),
    (b"Expect", b"something-else"), (b"Origin", b"http://localhost"), (b"Origin", b"null"),
    (b"Origin", b"https://evil.example"), (b"Origin", b"https://chat.example"),
    (b"Sec-Fetch-Site", b"cross-site"), (b"Host", b"evil.example"), (b"Content-Length", b"1"),
    (b"Transfer-Encoding", b"gzip"), (b"Bad Name", b"1"), (b"X-Nul", b"a\0b"),
    (b"Authorization", b"Bearer sk-all"), (b"Authorization", b"Bearer sk-a"),
    (b"Authorization", b"Bearer sk-renamed"), (b"Authorization", b"Bearer sk-admin"),
    (b"Authorization", b"Bearer wrong"), (b"Authorization", b"Basic eDpzay1hbGw="),
    (b"X-Api-Key", b"sk-all"), (b"X-Api-Key", b"wrong"), (b"X-Request-ID", b"mine.1"),
    (b"X-Request-ID", b"not mine"), (b"Connection", b"X-Request-ID"),
]  # fmt: skip
_TARGETS = [
    CHAT, CHAT + "?x=1", CHAT + "?key=sk-all", CHAT + "?", "/v1/completions", "/v1/messages",
    "/v1/embeddings", "/v/chat/completions", "/v1/chat%2Fcompletions", "/v1/chat/completion%73",
    "/v1//chat/completions", "/v1/chat/completions/", "/upstream/a/v1/chat/completions",
    "/upstream/a", "/audioapi/v1/tasks/run", "/v1/audio/voices?model=a", "/health", "/nowhere",
    "http://localhost" + CHAT,
]  # fmt: skip
_NAMES = [
    "alias", "renamed", "keyed", "timed", "b", "pick", "unknown", "", "A", "n" * 2000, "\u00e9", 7,
    None, ["a"],
]  # fmt: skip
_BODIES = [
    b"", b"{", b"[]", b"null", b'"a"', b'{"model":"a"', b'{"model":"a"}}', b"\xff\xfe",
    b'\xef\xbb\xbf{"model":"a"}', b' {"model":"a"}', b'{"model":"a"}\n', b'{"model":"\\u0061"}',
    b'{"model":"a","model":"b"}', b'{"model":"b","model":"a"}', b'{"x":{"model":"b"},"model":"a"}',
    b'{"model":"a","stream":true,"stream":false}', b'{"model":"a","n":1e999}', b"model=a&x=1",
    b'{"model":"a","x":"\xff"}', b'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\na\r\n'
    b"--b--\r\n",
]  # fmt: skip


@st.composite
def json_bodies(draw: st.DrawFn) -> bytes:
    """Return a JSON object that names a model, with members in any order."""
    members: dict[str, Any] = {"model": "a"}
    if draw(st.integers(0, 3)) == 0:
        members["model"] = draw(st.sampled_from(_NAMES))
    if draw(st.booleans()):
        members["stream"] = draw(st.sampled_from([True, False, None, "yes", 1]))
    members["say"] = draw(st.sampled_from(sorted(SCRIPTS)))
    if draw(st.integers(0, 9)) == 0:
        members["pad"] = "x" * draw(st.sampled_from([1000, 65_500, 70_000]))
    names = draw(st.permutations(sorted(members)))
    text = json.dumps({name: members[name] for name in names}, ensure_ascii=draw(st.booleans()))
    return text.encode()


@st.composite
def requests(draw: st.DrawFn, headers: tuple[tuple[bytes, bytes], ...]) -> Sent:
    """Return a request that differs from a plain one in a few ways."""
    sent = Sent(headers=headers, body=draw(json_bodies()))
    for what in draw(st.lists(st.sampled_from("mtvhhhhbcs"), max_size=3)):
        match what:
            case "m":
                method = draw(st.sampled_from(["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "post"]))
                sent = replace(sent, method=method)
            case "t":
                sent = replace(sent, target=draw(st.sampled_from(_TARGETS)))
            case "v":
                sent = replace(sent, version="1.0")
            case "h":
                found = list(sent.headers)
                item = draw(st.sampled_from(_HEADERS))
                found.insert(draw(st.integers(0, len(found))), item)
                sent = replace(sent, headers=tuple(found))
            case "b":
                sent = replace(sent, body=draw(st.sampled_from(_BODIES)))
            case "c":
                sent = replace(sent, chunk=draw(st.sampled_from([1, 7, 1 << 16])))
            case _:
                sent = replace(sent, is_split=True)
    return sent


# ---- what is compared
@dataclass
class Way:
    """One of the two proxies, and what was seen of it.

    Attributes:
        bench: The proxy with its upstream.
        hub: Connections of its clients.
        store: Where its activity goes.
        port: Where it listens.
        taken: How many requests the fast path has accepted.
        records: Finished requests.
        steps: Transitions of the chart.
    """

    bench: Bench
    hub: ConnectionManager
    store: ActivityStore
    port: int = 0
    taken: int = 0
    records: list[RequestRecord] = field(default_factory=list)
    steps: list[Transition] = field(default_factory=list)

    def begin(self) -> None:
        """Forget what was seen, and what follows from headers of earlier requests."""
        self.bench.app.proxy.header_cache = HeaderCache()
        self.bench.server.received.clear()
        self.records.clear()
        self.steps.clear()

    def common(self, text: str) -> str:
        """Return *text* without what each way has its own of: the upstream's port, and ids."""
        return _IDS.sub("ID", text.replace(str(self.bench.server.port), "PORT"))

    async def seen(self) -> dict[str, Any]:
        """Return all that is compared, but for the responses."""
        proxy, supervisor = self.bench.app.proxy, self.bench.supervisor
        await wait_until_async(lambda: not proxy.in_flight.open)
        metrics = proxy.accounting.metrics
        page = await self.store.page(ActivityQuery(limit=500))
        return {
            "upstream": [
                replace(received, headers=_without_ids(received.headers))
                for received in self.bench.server.received
            ],
            "records": [_record(record, self.common) for record in self.records],
            "rows": [
                row._replace(
                    error_msg=self.common(row.error_msg), request_id=self.common(row.request_id),
                    time=0, duration=0, waited=0, first_byte=0,
                )
                for row in page.rows
            ],
            "captured": [
                (
                    made.model, made.path, made.request, made.response, made.request_headers,
                    self.common(made.request_id.decode()),
                )
                for row in page.rows if (made := proxy.accounting.captures.get(row.id)) is not None
            ],
            "counted": (
                metrics.requests, metrics.tokens, metrics.transitions,
                {model: counters.sent for model, counters in metrics.models.items()},
            ),
            "timed": {
                name: {
                    model: sum(getattr(counters, name).counts)
                    for model, counters in metrics.models.items()
                }
                for name in ("durations", "waits", "first_bytes")
            },
            "chart": [
                (
                    step.service, step.event, re.sub(r"pid \d+", "pid", step.cause),
                    step.source, step.target, step.incarnation,
                )
                for step in self.steps
            ],
            "held": [
                (name, supervisor[name].in_flight, entry.granted)
                for name, entry in supervisor.scheduler.services.items()
            ],
        }  # fmt: skip


def _without_ids(headers: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
    return tuple((name, _IDS.sub("ID", value)) for name, value in headers)


def _record(record: RequestRecord, common: Callable[[str], str]) -> tuple[Any, ...]:
    instants = (record.started, record.admitted, record.headers_at, record.ended)
    assert sorted(filter(None, instants)) == [at for at in instants if at], instants
    return (
        record.id, record.model, record.method, record.path, record.status, record.content_type,
        [
            (name, common(value.decode("latin-1")))
            for name, value in record.response_headers if name != b"date"
        ],
        record.sent_bytes,
        b"".join(record.body_chunks), record.first_chunk, record.is_whole, record.keep_bytes,
        record.body, common(record.error), record.code, record.selector, record.priority,
        record.is_stream, record.is_metered, record.cancelled_by, *[bool(at) for at in instants],
    )  # fmt: skip


@dataclass
class Client:
    """One client connection, opened again when the proxy has closed it."""

    port: int
    reader: asyncio.StreamReader | None = None
    writer: asyncio.StreamWriter | None = None

    async def exchange(self, sent: Sent) -> tuple[Any, ...]:
        """Send a request; return its response: statuses, headers, body and how it ended."""
        if self.reader is None or self.writer is None:
            self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port)
        for piece in sent.pieces():
            self.writer.write(piece)
            await asyncio.sleep(0)
        statuses: list[int] = []
        headers: list[tuple[bytes, bytes]] = []
        body, end = b"", "whole"
        try:
            while not statuses or statuses[-1] < 200:
                first, headers = await self._head()
                statuses.append(int(first.split(b" ")[1]))
            fields = dict(headers)
            body, end = await self._body(sent.method, statuses[-1], fields)
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            end = f"aborted: {getattr(error, 'partial', b'')!r}"
            fields = {b"connection": b"close"}
        if fields.get(b"connection") == b"close" or end != "whole":
            end += ", closed" if await self.reader.read() == b"" else ", with more"
            self.close()
        return statuses, [item for item in headers if item[0] != b"date"], body, end

    async def _head(self) -> tuple[bytes, list[tuple[bytes, bytes]]]:
        assert self.reader is not None
        head = await self.reader.readuntil(b"\r\n\r\n")
        first, *lines = head[:-4].split(b"\r\n")
        pairs = (line.partition(b":") for line in lines)
        return first, [(name.lower(), value.strip()) for name, _, value in pairs]

    async def _body(
        self, method: str, status: int, fields: dict[bytes, bytes]
    ) -> tuple[bytes, str]:
        reader = self.reader
        assert reader is not None
        if method == "HEAD" or status in (204, 304):
            return b"", "whole"
        if b"content-length" in fields:
            return await reader.readexactly(int(fields[b"content-length"])), "whole"
        if b"transfer-encoding" not in fields:
            return await reader.read(), "until close"
        body = b""
        while size := int(await reader.readuntil(b"\r\n"), 16):
            body += (await reader.readexactly(size + 2))[:-2]
        await reader.readexactly(2)
        return body, "whole"

    def close(self) -> None:
        """Close the connection, if there is one."""
        if self.writer is not None:
            self.writer.close()
        self.reader = self.writer = None


# ---- the two proxies
@asynccontextmanager
async def way(options: ProxyOptions, *, has_fast_path: bool) -> AsyncIterator[Way]:
    """Run one of the two proxies, behind a socket."""
    models = [
        ModelDefinition(id="a", aliases=("alias",), priority=3),
        ModelDefinition(id="b"),
        ModelDefinition(id="renamed", use_model_name="other"),
        ModelDefinition(id="keyed", passes_keys=True),
        ModelDefinition(id="timed", limits=UpstreamTimeouts(header_s=1.0)),
    ]
    database = Database(None, MIGRATIONS)
    database.open()
    store = ActivityStore(database)
    loop = asyncio.get_running_loop()
    try:
        async with proxied(
            *models, respond=respond, options=options, activity=store,
            policy=lambda name, running: running & {"a", "b"} if name in "ab" else frozenset(),
            selectors=[SelectorDefinition(id="pick", strategy="spillover", targets=("a", "b"))],
        ) as bench:  # fmt: skip
            hub = ConnectionManager(loop, H1Limits(), lambda: False)
            found = Way(bench, hub, store)

            def counted(call: Any) -> bool:
                is_taken = bench.app.fast_path.try_fast_path(call)
                found.taken += is_taken
                return is_taken

            bench.app.proxy.on_finished = found.records.append
            bench.supervisor.listen(found.steps.append)
            fast_path = counted if has_fast_path else None
            server = await loop.create_server(
                lambda: ServerConnection(hub, bench.app, loop, try_fast_path=fast_path),
                "127.0.0.1",
                0,
            )
            found.port = server.sockets[0].getsockname()[1]
            async with server:
                yield found
    finally:
        database.close()


async def hold(
    options: ProxyOptions, ready: asyncio.Future[tuple[Way, Way]], done: asyncio.Event
) -> None:
    """Run both proxies until *done*; in one task, as the cancel scopes inside demand."""
    async with (
        way(options, has_fast_path=True) as fast,
        way(options, has_fast_path=False) as regular,
    ):
        ready.set_result((fast, regular))
        await done.wait()


async def first_of(*work: asyncio.Future[Any]) -> Any:
    """Return the result of what ends first."""
    done, _ = await asyncio.wait(work, return_when=asyncio.FIRST_COMPLETED)
    return done.pop().result()


async def compare(ways: tuple[Way, Way], sent: list[Sent]) -> None:
    """Send requests both ways, and hold everything that was seen to the same."""
    responses, seen = [], []
    for one in ways:
        one.begin()
        client = Client(one.port)
        try:
            async with asyncio.timeout(20):
                found = [await client.exchange(request) for request in sent]
            responses.append([one.common(repr(response)) for response in found])
        finally:
            client.close()
        seen.append(await one.seen())
    for number, (fast, regular) in enumerate(zip(*responses, strict=True)):
        assert fast == regular, sent[number]
    for what in seen[0]:
        assert seen[0][what] == seen[1][what], what


def _with_prime(requests: list[Sent]) -> list[Sent]:
    """Let a plain request with the same headers go before each, so that its headers are known."""
    return [each for sent in requests for each in (replace(sent, body=Sent().body), sent)]


KEYS = (
    ApiKey(key="sk-all"), ApiKey(key="sk-a", models=("a",)),
    ApiKey(key="sk-renamed", models=("renamed",)),
    ApiKey(key="sk-admin", scopes=frozenset({"admin"})),
)  # fmt: skip
_PLAIN = Sent().headers
_KEYED = (*_PLAIN, (b"Authorization", b"Bearer sk-all"))


@pytest.mark.parametrize("has_keys", [False, True], ids=["open", "keys"])
def test_fast_path_any_request_same_as_regular_path(has_keys: bool) -> None:
    """Responses, records, metrics and chart events do not tell by which path a request went."""
    options = ProxyOptions(
        keys=KEYS if has_keys else (), allowed_origins=("https://chat.example",),
        capture_bytes=(1 << 20) * has_keys, instance_id="me", check_host=True,
    )  # fmt: skip
    new_loop = fastest_loop() if has_keys else asyncio.new_event_loop
    headers = _KEYED if has_keys else _PLAIN
    with asyncio.Runner(loop_factory=new_loop) as runner:
        loop = runner.get_loop()
        ready, done = loop.create_future(), asyncio.Event()
        host = loop.create_task(hold(options, ready, done))
        try:
            ways = runner.run(first_of(ready, host))
            _search(lambda sent: runner.run(compare(ways, sent)), headers)
        finally:
            done.set()
            runner.run(first_of(host))

    assert ways[0].taken > 100, "the fast path served too little for a comparison"
    assert ways[1].taken == 0


def _each_variation(plain: Sent) -> list[list[Sent]]:
    """Return what the strategies choose from, one choice after the other."""
    key = (*_PLAIN, (b"Authorization", b"Bearer sk-renamed"))
    return [
        [plain] * 3,
        [replace(plain, body=b'{"model":"a","say":"%b"}' % name.encode()) for name in SCRIPTS],
        [replace(plain, headers=(*plain.headers, item)) for item in _HEADERS],
        [replace(plain, target=target) for target in _TARGETS],
        [replace(plain, body=json.dumps({"model": name}).encode()) for name in ("a", *_NAMES)],
        [replace(plain, body=body) for body in _BODIES],
        # A key for another model: its headers are known, and both models have the same upstream.
        [Sent(headers=key, body=b'{"model":"%b"}' % name) for name in (b"renamed", b"a")],
        # Models that get the client's key and models that do not, with the same headers and host.
        [
            replace(plain, target=CHAT + "?key=sk-all", body=b'{"model":"%b"}' % name)
            for name in (b"a", b"keyed", b"a", b"keyed")
        ],
        [replace(plain, body=_SILENT)],
    ]


def _search(check: Callable[[list[Sent]], None], headers: tuple[tuple[bytes, bytes], ...]) -> None:
    for sent in _each_variation(Sent(headers=headers)):
        check(_with_prime(sent))

    @settings(max_examples=150)
    @given(st.lists(requests(headers), min_size=1, max_size=3))
    def search(sent: list[Sent]) -> None:
        check(_with_prime(sent))

    search()
