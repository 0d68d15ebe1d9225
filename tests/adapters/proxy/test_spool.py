"""Spool of a body: what was written comes back, from memory and from the disk."""

from __future__ import annotations

import asyncio
import random
from itertools import pairwise
from pathlib import Path

import pytest

from swapchart.adapters.proxy.body.errors import BodyTooLargeError
from swapchart.adapters.proxy.body.spool import _MEMORY_BYTES, _PIECE_BYTES, Spool

#: Writes: within the memory, exactly its limit, one byte more, and several spills with a rest.
WRITES = (
    [5], [_MEMORY_BYTES], [_MEMORY_BYTES + 1], [_MEMORY_BYTES, 1, 7],
    [_MEMORY_BYTES // 2] * 5 + [3], [3 * _PIECE_BYTES] * 4,
)  # fmt: skip


@pytest.mark.parametrize("sizes", WRITES, ids=str)
def test_spool_any_range_is_what_was_written(sizes: list[int]) -> None:
    """Ranges that begin or end at, before and behind each border of writes and pieces."""
    data = random.Random(1).randbytes(sum(sizes))
    borders = {0, len(data), sizes[0], _PIECE_BYTES, _MEMORY_BYTES, _MEMORY_BYTES + 3}
    near = {at + shift for at in borders for shift in (-1, 0, 1)}
    places = sorted(at for at in near if 0 <= at <= len(data))

    async def main() -> None:
        spool = Spool(len(data))
        at = 0
        for size in sizes:
            await spool.write(data[at : at + size])
            at += size
        assert spool.size == len(data)
        ranges = [*pairwise(places), (0, len(data)), (places[1], places[-2]), (7, 7)]
        for start, end in ranges:
            pieces = [piece async for piece in spool.pieces(start, end)]
            assert b"".join(pieces) == data[start:end], (start, end)
            assert all(pieces)
            # The last piece may be all that is in memory.
            assert all(len(piece) <= _PIECE_BYTES for piece in pieces[:-1])
            assert all(len(piece) <= _MEMORY_BYTES for piece in pieces)
        spool.close()

    asyncio.run(main())


def test_spool_limit_is_reached_but_not_exceeded() -> None:
    """Exactly the limit fits; one byte more is refused."""

    async def main() -> None:
        spool = Spool(10)
        await spool.write(b"0123456789")
        with pytest.raises(BodyTooLargeError, match="larger than 10 bytes"):
            await spool.write(b"x")
        spool.close()

    asyncio.run(main())


def test_spool_file_is_opened_beyond_the_memory_only_and_closed() -> None:
    """A body that fits into memory touches no disk."""

    def open_files() -> int:
        return sum(1 for _ in Path("/proc/self/fd").iterdir())

    async def main() -> None:
        spool = Spool(3 * _MEMORY_BYTES)
        await spool.write(bytes(_MEMORY_BYTES))
        before = open_files()
        await spool.write(b"x")
        assert open_files() == before + 1
        await spool.write(bytes(_MEMORY_BYTES + 1))
        assert open_files() == before + 1
        spool.close()
        assert open_files() == before
        spool.close()

    asyncio.run(main())
