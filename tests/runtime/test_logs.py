"""Logs: bounded, with many readers, none of which can slow the log down."""

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
    """For any chunks, the last bytes up to the limit are kept."""
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
    """The last lines with a partial one, for any bytes."""
    ring = LogRing()
    ring.write(b"one\ntw")
    ring.write(b"o\n\xff\xfe\nlast")

    assert ring.tail(2) == ["\ufffd\ufffd", "last"]
    assert ring.tail(9) == ["one", "two", "\ufffd\ufffd", "last"]


def test_tail_of_a_long_log_is_found_without_reading_all_of_it() -> None:
    """Only the end of a large ring is read."""
    ring = LogRing()
    for number in range(10_000):
        ring.line(f"line {number}")

    assert ring.tail(3) == ["line 9997", "line 9998", "line 9999"]


def test_ring_passes_writes_to_its_parent() -> None:
    """Each ring keeps its own limit."""
    whole = LogRing(100)
    part = LogRing(3, forward=whole)
    part.write(b"abcdef")

    assert part.history() == b"def"
    assert whole.history() == b"abcdef"


def test_section_has_what_was_written_until_the_next_one() -> None:
    """Of a section whose beginning was dropped the rest is kept; unknown ones are None."""
    ring = LogRing(10)
    ring.write(b"early")
    ring.begin_section(3)
    ring.write(b"three")
    ring.begin_section(4)
    ring.write(b"four")

    assert b"".join(ring.section(3) or []) == b"three"
    assert b"".join(ring.section(4) or []) == b"four"
    assert ring.section(2) is None
    assert (ring.is_open(3), ring.is_open(4)) == (False, True)
    ring.write(b"4567")
    assert b"".join(ring.section(3) or []) == b"ee"
    assert (ring.section_bytes(3), ring.section_bytes(4), ring.section_bytes(2)) == (5, 8, None)
    ring.write(b"0123456789")
    assert ring.section(3) == []


def test_stream_of_a_section_ends_with_it() -> None:
    """A reader of the last section follows it until the next begins; others end at once."""

    async def main() -> None:
        ring = LogRing()
        ring.begin_section(1)
        ring.write(b"one")
        ring.begin_section(2)
        ring.write(b"two")
        got: dict[int, bytes] = {1: b"", 2: b""}

        async def read(number: int) -> None:
            async for data in ring.stream(section=number):
                got[number] += data

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(read, 1)
            tasks.start_soon(read, 2)
            await anyio.sleep(1.0)
            ring.write(b" more")
            ring.begin_section(3)
            ring.write(b"three")

        assert got == {1: b"one", 2: b"two more"}
        assert not ring._readers

    run_virtual(main)


async def take(stream: AsyncIterator[bytes], count: int) -> list[bytes]:
    taken = []
    async for data in stream:
        taken.append(data)
        if len(taken) == count:
            break
    return taken


def test_reader_gets_history_and_new_output() -> None:
    """History comes first if requested, then each new chunk."""

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
    """Its buffer is bounded, a note replaces lost bytes, and other readers get all."""

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
    """A reader that catches up after a flood gets the note at once."""

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
    """A closed reader is forgotten."""

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
    """An empty write calls none; a watcher that was added twice is called once."""
    ring, calls = LogRing(), []

    def first() -> None:
        calls.append(("first", ring.total_bytes))

    ring.watch(first)
    ring.watch(lambda: calls.append(("second", ring.total_bytes)))
    ring.watch(first)
    ring.write(b"ab")
    ring.write(b"")
    ring.write(b"c")

    assert sorted(calls) == [("first", 2), ("first", 3), ("second", 2), ("second", 3)]


def test_watcher_that_was_removed_is_not_called() -> None:
    """A watcher may be removed at any time, within a call too; others are still called."""
    ring, calls = LogRing(), []

    def removed() -> None:
        calls.append("removed")
        ring.unwatch(removed)

    ring.watch(removed)
    ring.watch(lambda: calls.append("kept"))
    ring.unwatch(print)
    ring.write(b"1")
    ring.write(b"2")

    assert calls == ["removed", "kept", "kept"]
    assert ring.is_watched


@pytest.mark.parametrize("text", ["plain", "gr\u00fc\u00dfe", "\udcff"])
def test_proxy_log_lines_are_text(text: str) -> None:
    """Any text is appended as one line."""
    ring = LogRing()
    ring.line(text)

    assert ring.history().endswith(b"\n")
