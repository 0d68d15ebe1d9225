"""When data is dealt with and sent: alone at once, many together, and always in order."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

import pytest
from tools.transports import Wire

from swapchart.adapters.http1 import io_batch
from swapchart.adapters.http1.io_batch import ReadBatch, WriteBatch
from swapchart.adapters.http1.server.connection import ServerConnection
from swapchart.adapters.http1.server.connections import ConnectionManager
from swapchart.adapters.http1.server.hypercorn_protocol import H1Limits

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Writer:
    def __init__(self, name: str, sent: list[str]) -> None:
        self.name, self.sent = name, sent

    def send_pending(self) -> None:
        self.sent.append(self.name)

    def write_failed(self) -> None:
        raise AssertionError("it did not fail")


class FailingWriter(Writer):
    has_given_up = False

    def send_pending(self) -> None:
        raise MemoryError

    def write_failed(self) -> None:
        self.has_given_up = True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Sets the clock that write batches read; seconds."""
    at = [100.0]
    monkeypatch.setattr(io_batch, "perf_counter", lambda: at[0])

    def put(now: float) -> None:
        at[0] = now

    return put


async def turn() -> None:
    await asyncio.sleep(0)
    await asyncio.sleep(0)


async def test_write_batch_single_write_is_sent_at_once(clock: Callable[[float], None]) -> None:
    """A lone request is not made to wait, however many came before it one by one."""
    batch, sent, loop = WriteBatch(), list[str](), asyncio.get_running_loop()
    for number in range(5):
        clock(200.0 + number)
        batch.add(loop, Writer(str(number), sent))
        assert len(sent) == number + 1


async def test_write_batch_writes_of_one_turn_are_sent_together(
    clock: Callable[[float], None],
) -> None:
    """The first goes at once, those right behind it together; so it stays while they are many."""
    batch, sent, loop = WriteBatch(), list[str](), asyncio.get_running_loop()
    for name in "abc":
        batch.add(loop, Writer(name, sent))
    assert sent == ["a"]
    await turn()
    assert sent == ["a", "b", "c"]

    clock(300.0)  # a while later: they are still taken for many, until one is alone in a turn
    batch.add(loop, Writer("d", sent))
    assert sent == ["a", "b", "c"]
    await turn()
    assert sent == ["a", "b", "c", "d"]
    clock(400.0)
    batch.add(loop, Writer("e", sent))
    assert sent[-1] == "e"


async def test_write_batch_beyond_its_size_is_sent(clock: Callable[[float], None]) -> None:
    """In a long turn the first ones go before its end."""
    batch, sent, loop = WriteBatch(), list[str](), asyncio.get_running_loop()
    count = 3 * io_batch._MAX_WRITERS
    for number in range(count):
        batch.add(loop, Writer(str(number), sent))
    assert len(sent) >= 2 * io_batch._MAX_WRITERS
    await turn()
    assert sent == [str(number) for number in range(count)]


async def test_write_batch_failing_writer_does_not_block_others(
    clock: Callable[[float], None],
) -> None:
    """Whatever happens to one connection, those behind it in the turn are sent."""
    batch, sent, loop = WriteBatch(), list[str](), asyncio.get_running_loop()
    for name in "ab":
        batch.add(loop, Writer(name, sent))
    lost = FailingWriter("?", sent)
    batch.add(loop, lost)
    batch.add(loop, Writer("c", sent))
    await turn()
    assert sent == ["a", "b", "c"]
    assert lost.has_given_up


class Reader:
    """Notes what is done with its data."""

    def __init__(self, name: str, done: list[str], *, fails: str = "") -> None:
        self.name, self.done, self.fails = name, done, fails
        self.transport: Any = self

    def take_read(self, data: bytes) -> None:
        self._do(f"take {self.name} {data[:4].decode()}")

    def act_on_read(self) -> None:
        self._do(f"act {self.name}")

    def _do(self, what: str) -> None:
        self.done.append(what)
        if self.fails and what.startswith(self.fails):
            raise MemoryError

    def abort(self) -> None:
        self.done.append(f"failed {self.name}")


async def test_read_batch_single_read_is_dealt_with_at_once(
    clock: Callable[[float], None],
) -> None:
    """Data of a lone client does not wait."""
    batch, done, loop = ReadBatch(), list[str](), asyncio.get_running_loop()
    for number in range(3):
        clock(200.0 + number)
        batch.add(loop, Reader("a", done), b"1")

    assert done == ["take a 1", "act a"] * 3


@pytest.mark.parametrize("fails", ["", "take b", "act b"])
async def test_read_batch_reads_of_one_turn_are_dealt_with_step_by_step(
    fails: str, clock: Callable[[float], None]
) -> None:
    """The first goes at once, those right behind it together; a failure is of one only."""
    batch, done, loop = ReadBatch(), list[str](), asyncio.get_running_loop()
    for name in "abc":
        batch.add(loop, Reader(name, done, fails=fails), b"1")
    assert done == ["take a 1", "act a"]
    await turn()

    rest = done[2:]
    assert [step for step in rest if " b" not in step] == ["take c 1", "act c"]
    assert rest[:2] == ["take b 1", "failed b" if fails == "take b" else "take c 1"]
    assert ("failed b" in rest) == bool(fails)


class Answerer(Reader):
    """Sends something for each read."""

    def __init__(self, name: str, done: list[str], writes: WriteBatch) -> None:
        super().__init__(name, done)
        self.writes = writes

    def act_on_read(self) -> None:
        writer = Writer(f"sent by {self.name}", self.done)
        self.writes.add(asyncio.get_running_loop(), writer)


async def test_read_batch_sends_what_came_of_it_right_behind(
    clock: Callable[[float], None],
) -> None:
    """Responses wait for the other reads, and for no further turn of the loop."""
    reads, writes, done, loop = ReadBatch(), WriteBatch(), list[str](), asyncio.get_running_loop()
    reads.add(loop, Reader("a", done), b"1")
    for name in "bc":
        reads.add(loop, Answerer(name, done, writes), b"1")
    reads.flush()

    assert done[2:] == ["take b 1", "take c 1", "sent by b", "sent by c"]
    clock(500.0)
    writes.add(loop, Writer("later", done))
    assert "later" not in done, "the last turn had several"
    await turn()
    assert done[-1] == "later"


async def test_read_batch_much_data_goes_behind_all_that_waits(
    clock: Callable[[float], None],
) -> None:
    """It is dealt with at once, and what has waited before it."""
    batch, done, loop = ReadBatch(), list[str](), asyncio.get_running_loop()
    batch.add(loop, Reader("a", done), b"1")
    assert batch.add(loop, Reader("b", done), b"1")
    assert batch.add(loop, Reader("c", done), b"1")
    assert not batch.add(loop, Reader("d", done), bytes(1 << 15))

    assert [step.split()[0:2] for step in done[2:]] == [
        ["take", "b"], ["take", "c"], ["act", "b"], ["act", "c"], ["take", "d"], ["act", "d"],
    ]  # fmt: skip
    await turn()
    assert len(done) == 8


async def test_read_batch_pieces_of_a_client_keep_their_order(
    clock: Callable[[float], None],
) -> None:
    """Data behind data that waits is parsed behind it."""
    loop = asyncio.get_running_loop()
    manager = ConnectionManager(loop, H1Limits(), lambda: False)
    paths: list[str] = []

    async def app(scope: Any, *_: Any) -> None:
        paths.append(scope["path"])

    connection, wire = ServerConnection(manager, app, loop), cast("Any", Wire())
    connection.connection_made(wire)
    manager.read_batch.add(loop, Reader("an earlier reader", []), b"")
    for piece in (b"GET /a", b"b", b"c HTTP/1.1\r\nHost: x\r\n\r\n"):
        connection.data_received(piece)
        assert connection.is_read_pending
    await turn()

    assert paths == ["/abc"]


async def test_read_batch_request_before_a_half_close_is_served(
    clock: Callable[[float], None],
) -> None:
    """Data that waits is dealt with before the end of the connection."""
    loop = asyncio.get_running_loop()
    manager = ConnectionManager(loop, H1Limits(), lambda: False)
    paths: list[str] = []

    async def app(scope: Any, *_: Any) -> None:
        paths.append(scope["path"])

    manager.read_batch.add(loop, Reader("an earlier reader", []), b"")
    for end in ("eof_received", "connection_lost"):
        connection = ServerConnection(manager, app, loop)
        wire: Any = Wire()
        connection.connection_made(wire)
        connection.data_received(b"GET /%b HTTP/1.1\r\nHost: x\r\n\r\n" % end.encode())
        assert connection.is_read_pending
        getattr(connection, end)(*([None] if end == "connection_lost" else []))
        assert not connection.is_read_pending
    await turn()

    assert paths == ["/eof_received", "/connection_lost"]


def waiting_connection(manager: ConnectionManager, wire: Any) -> ServerConnection:
    """Return a connection of *manager* that has something to send, and waits with it."""
    loop = asyncio.get_running_loop()

    async def app(*_: Any) -> None:
        pass

    connection = ServerConnection(manager, app, loop)
    connection.connection_made(wire)
    manager.write_batch.add(loop, Writer("an earlier writer", []))
    connection.writer.write(b"one")
    assert wire.done == []
    return connection


@pytest.mark.parametrize("how", ["turn", "parts", "much", "close", "error", "eof", "cut", "lost"])
async def test_write_batch_waiting_response_keeps_its_order(
    how: str, clock: Callable[[float], None]
) -> None:
    """It goes out before what comes behind it, a cut or the client's half-close too."""
    manager = ConnectionManager(asyncio.get_running_loop(), H1Limits(), lambda: False)
    wire = Wire()
    connection = waiting_connection(manager, wire)
    connection.writer.write(b" two")
    match how:
        case "turn":
            pass
        case "parts":
            connection.writer.write_parts([b"larg", b"er"])
        case "much":
            connection.writer.write(bytes(1 << 16))
            assert len(wire.done) == 1, "what is large goes at once"
        case "close":
            connection._close(linger=False)
        case "error":
            connection._send_error(400, b"id")
        case "eof":
            connection.eof_received()
            wire.close()  # as a transport does behind it
        case "cut":
            connection.abort()
        case _:
            connection.connection_lost(None)
    await turn()
    expected: dict[str, list[Any]] = {
        "turn": [b"one two"],
        "parts": [b"one two", b"larger"],
        "much": [b"one two" + bytes(1 << 16)],
        "close": [b"one two", "end"],
        "eof": [b"one two", "end"],
        "cut": [b"one two", "end"],
        "lost": [],
    }
    if how == "error":
        assert wire.sent.startswith(b"one twoHTTP/1.1 400 ")
        assert wire.done[1:] == ["end"]
    else:
        assert wire.done == expected[how]
