"""Forwarding of a multipart form with another model in it.

A module of its own, since a compiled module cannot hold asynchronous generators.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

from .multipart import FieldValue, MultipartScanner
from .spool import Spool


async def multipart_with_model(
    scanner: MultipartScanner,
    spool: Spool,
    rest: AsyncIterator[bytes],
    found: FieldValue,
    value: bytes,
) -> AsyncIterator[bytes]:
    """Yield the form with *value* as its model: first what is spooled, then the rest.

    Raises:
        BadBodyError: The rest has a second model, or no end.
    """
    async for piece in spool.pieces(0, found.start):
        yield piece
    yield value
    async for piece in spool.pieces(found.end, spool.size):
        yield piece
    async for piece in rest:
        scanner.feed(piece)
        yield piece
    scanner.finish()
