"""The main job: a request makes its model ready, whatever runs, and gets its answer unharmed."""

from __future__ import annotations

import asyncio
import json
import resource
import time
from pathlib import Path

import pytest
from tools import raw
from tools.net import LONG_S, wait_until
from tools.rows import row
from tools.swapchart_process import CHAT, Journal, Serve, chat_body, demo_model

pytestmark = pytest.mark.slow

CROWD = 1000


def test_request_swaps_models(serve: Serve, server: str) -> None:
    """A request for a stopped model evicts the running one, starts its own, and is answered."""
    proxy = serve({name: demo_model(name) for name in "ab"}, server=server)

    for name in "abab":
        answer = proxy.chat(name)

        assert answer.status == 200
        assert answer.json()["model"] == name
        assert [*proxy.running()] == [name]
    assert proxy.running()["b"]["incarnation"] == 2


def test_second_request_joins_the_start(serve: Serve) -> None:
    """Requests for a model that loads wait for the one start."""
    proxy = serve({"a": demo_model("a", "--load-seconds", "0.5")})

    with proxy.open_chat("a") as first:
        proxy.wait_state("a", "health_checking")
        second = proxy.chat("a")

        assert second.status == 200
        assert first.read_answer().status == 200
    assert proxy.running()["a"]["incarnation"] == 1


@row("D01")
def test_thousand_requests_share_one_start(serve: Serve, server: str) -> None:
    """A thousand requests at once for a stopped model: one start, and all are answered."""
    options = ("--load-seconds", "0.3", "--slots", "64", "--quiet")
    proxy = serve({"a": demo_model("a", *options, concurrencyLimit=CROWD)}, server=server)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)  # 1,024 and more in most shells
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        answers = asyncio.run(_crowd(proxy.port, CROWD))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    assert [answer.split(b" ", 2)[1] for answer in answers] == [b"200"] * CROWD
    assert all(answer.endswith(b"}") for answer in answers)
    row = proxy.running()["a"]
    assert (row["incarnation"], row["in_flight"], row["waiting"]) == (1, 0, 0)


async def _crowd(port: int, size: int) -> list[bytes]:
    """Send *size* requests on as many connections; returns all bytes of each answer."""
    close = {"Connection": "close"}
    request = raw.encode_request("POST", CHAT, value=chat_body("a"), headers=close)

    async def one() -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request)
        answer = await reader.read(-1)
        writer.close()
        return answer

    async with asyncio.timeout(60.0):
        return await asyncio.gather(*(one() for _ in range(size)))


def test_stream_arrives_piece_by_piece(
    serve: Serve, layer: str, journal: Journal, tmp_path: Path
) -> None:
    """Events of a stream are passed on before the next one is made, byte for byte.

    On a busy machine the proxy may sleep for two of them, which then come in one piece.
    """
    copy = tmp_path / "copy"
    proxy = serve({"w": journal.model("w", "--copy", str(copy))}, server=layer)
    events, every_s = 20, 0.05
    delays = []
    pieces, body = 0, b""
    with proxy.open_chat("w", events=events, every_s=every_s, size=700) as connection:
        assert connection.read_head().header("content-type") == "text/event-stream"
        while chunk := connection.read_chunk():
            body += chunk
            pieces += 1
            now = time.monotonic()
            parts = chunk.removesuffix(b"data: [DONE]\n\n").split(b"\n\n")[:-1]
            delays += [now - json.loads(part.removeprefix(b"data: "))["at"] for part in parts]

    assert body == wait_until(lambda: copy.exists() and copy.read_bytes(), LONG_S)
    assert len(delays) == events
    assert pieces > events // 2, "most events came with another one"
    assert sorted(delays)[len(delays) // 2] < every_s


def test_swap_waits_for_requests_in_flight(serve: Serve, server: str, journal: Journal) -> None:
    """While a stream runs on one model a request for another waits; both end well."""
    models = {name: journal.model(name) for name in "ab"}
    proxy = serve(models, server=server)
    with (
        proxy.open_chat("a", events=30, every_s=0.02) as stream,
        raw.Connection(proxy.port, timeout_s=LONG_S) as other,
    ):
        head = stream.read_head()
        other.request("POST", CHAT, value=chat_body("b"))
        answer = stream.read_body(head)

        assert answer.body.endswith(b"data: [DONE]\n\n")
        assert other.read_answer().status == 200
    words = journal.words()
    order = ["a answered", "a SIGTERM", f"b request POST {CHAT} b"]
    assert sorted(order, key=words.index) == order
    assert [*proxy.running()] == ["b"]


def test_several_swaps_wait_for_their_turn(serve: Serve) -> None:
    """Requests for three models at once are all answered, by one model at a time."""
    proxy = serve({name: demo_model(name) for name in "abc"})
    names = "abcabc"
    connections = [proxy.open_chat(name) for name in names]
    answers = [connection.read_answer() for connection in connections]

    assert [answer.json()["model"] for answer in answers] == [*names]
    assert len(proxy.running()) == 1
    for connection in connections:
        connection.close()
