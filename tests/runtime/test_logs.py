"""The output of a process: kept within a cap, read by many, slowed by none."""

from __future__ import annotations

from collections.abc import AsyncIterator

import anyio
import anyio.lowlevel
import pytest
from hypothesis import given
from hypothesis.strategies import binary, integers, lists
from tools.rows import row

from swapchart.runtime import LogRing
from swapchart.runtime.testing import run_virtual


@given(lists(binary(max_size=20)), integers(0, 30))
def test_ring_keeps_exactly_the_last_bytes(chunks: list[bytes], limit: int) -> None:
    """However the output is cut, what is kept is its end, up to the limit, and nothing else."""
    ring = LogRing(limit)
    for chunk in chunks:
        ring.write(chunk)
    everything = b"".join(chunks)

    assert ring.history() == everything[len(everything) - min(limit, len(everything)) :]
    assert ring.total_bytes == len(everything)


def test_ring_limit_can_change() -> None:
    """A smaller limit holds from the next write on."""
    ring = LogRing(100)
    ring.write(b"0123456789")
    ring.resize(4)
    ring.write(b"ab")

    assert ring.history() == b"89ab"


def test_tail_consists_of_whole_lines() -> None:
    """The last lines, a partial one included, whatever bytes they hold."""
    ring = LogRing()
    ring.write(b"one\ntw")
    ring.write(b"o\n\xff\xfe\nlast")

    assert ring.tail(2) == ["\ufffd\ufffd", "last"]
    assert ring.tail(9) == ["one", "two", "\ufffd\ufffd", "last"]


def test_tail_of_a_long_log_is_found_without_reading_all_of_it() -> None:
    """Only the end of a large ring is looked at."""
    ring = LogRing()
    for number in range(10_000):
        ring.line(f"line {number}")

    assert ring.tail(3) == ["line 9997", "line 9998", "line 9999"]


def test_ring_passes_writes_to_its_parent() -> None:
    """A ring forwards; each keeps to its own limit."""
    whole = LogRing(100)
    part = LogRing(3, forward=whole)
    part.write(b"abcdef")

    assert part.history() == b"def"
    assert whole.history() == b"abcdef"


async def take(stream: AsyncIterator[bytes], count: int) -> list[bytes]:
    taken = []
    async for data in stream:
        taken.append(data)
        if len(taken) == count:
            break
    return taken


def test_reader_gets_history_and_new_output() -> None:
    """History first, then each new piece; without history only the latter."""

    async def main() -> None:
        ring = LogRing()
        ring.write(b"old")
        with_history, without = ring.stream(), ring.stream(history=False)
        taken: list[list[bytes]] = []

        async def read(stream: AsyncIterator[bytes], count: int) -> None:
            taken.append(await take(stream, count))
            await stream.aclose()  # type: ignore[attr-defined]

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(read, with_history, 2)
            tasks.start_soon(read, without, 1)
            await anyio.sleep(1.0)
            ring.write(b"new")

        assert sorted(taken, key=len) == [[b"new"], [b"old", b"new"]]
        assert not ring._readers

    run_virtual(main)


@row("A24")
def test_slow_reader_gets_the_number_of_lost_bytes() -> None:
    """Its buffer is bounded; a note stands in the place of what was dropped; others get all."""

    async def main() -> None:
        ring = LogRing()
        slow, quick = ring.stream(limit_bytes=10), ring.stream(limit_bytes=1 << 20)
        got: dict[str, bytes] = {"slow": b"", "quick": b""}
        gate = anyio.Event()

        async def read(name: str, stream: AsyncIterator[bytes]) -> None:
            async for data in stream:
                got[name] += data
                if data.endswith(b"end"):
                    break
                if name == "slow":
                    await gate.wait()
            await stream.aclose()  # type: ignore[attr-defined]

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(read, "slow", slow)
            tasks.start_soon(read, "quick", quick)
            await anyio.sleep(1.0)
            for piece in (b"first.", b"12345678", b"dropped1", b"dropped22"):
                ring.write(piece)
                await anyio.sleep(0.1)
            gate.set()
            await anyio.sleep(1.0)
            ring.write(b"end")

        assert got["quick"] == b"first.12345678dropped1dropped22end"
        assert got["slow"] == b"first.12345678\n[17 bytes dropped]\nend"

    run_virtual(main)


@row("A24")
def test_slow_reader_gets_the_number_without_further_writes() -> None:
    """A reader that catches up after a flood learns of its loss at once."""

    async def main() -> bytes:
        ring = LogRing()
        stream = ring.stream(limit_bytes=4)
        ring.write(b"early")
        assert await anext(stream) == b"early"  # history may be longer than its buffer
        ring.write(b"too long for it")
        note = await anext(stream)
        await stream.aclose()
        return note

    assert run_virtual(main) == b"\n[15 bytes dropped]\n"


def test_ring_without_readers_accepts_writes() -> None:
    """A reader that was dropped is forgotten."""

    async def main() -> None:
        ring = LogRing()
        stream = ring.stream(history=False)
        with anyio.move_on_after(1.0):
            await anext(stream)
        ring.write(b"x")
        await anyio.lowlevel.checkpoint()

        assert not ring._readers

    run_virtual(main)


def test_watchers_are_called_for_each_write() -> None:
    """Watchers are called for bytes, and not for nothing; one that was asked for twice, once."""
    ring, heard = LogRing(), []

    def first() -> None:
        heard.append(("first", ring.total_bytes))

    ring.watch(first)
    ring.watch(lambda: heard.append(("second", ring.total_bytes)))
    ring.watch(first)
    ring.write(b"ab")
    ring.write(b"")
    ring.write(b"c")

    assert sorted(heard) == [("first", 2), ("first", 3), ("second", 2), ("second", 3)]


def test_watcher_that_was_removed_is_not_called() -> None:
    """A watcher may leave at any time, within a call too, and others hear on."""
    ring, heard = LogRing(), []

    def leaving() -> None:
        heard.append("leaving")
        ring.unwatch(leaving)

    ring.watch(leaving)
    ring.watch(lambda: heard.append("staying"))
    ring.unwatch(print)
    ring.write(b"1")
    ring.write(b"2")

    assert heard == ["leaving", "staying", "staying"]
    assert ring.is_watched


@pytest.mark.parametrize("text", ["plain", "gr\u00fc\u00dfe", "\udcff"])
def test_proxy_log_lines_are_text(text: str) -> None:
    """Whatever the text, a line is appended and ends with a newline."""
    ring = LogRing()
    ring.line(text)

    assert ring.history().endswith(b"\n")
