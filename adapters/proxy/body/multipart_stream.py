"""A multipart form on its way to a server, with another model in it.

In a module of its own: what is compiled has no asynchronous generators.
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
    """Yield the form with *value* as its model: what has come of it, and what comes.

    Raises:
        BadBodyError: What comes has another model, or no end.
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
