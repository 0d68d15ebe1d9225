"""Unpacks a gzip body in bounded steps, up to a size limit.

The size that a body has unpacked is not known before, and may be a thousand times its own. Only one
member is accepted: no client sends several, and each would cost a copy of the rest.

Source: RFC 1952.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator

from .errors import BadBodyError, BodyTooLargeError

_INPUT_BYTES = 1 << 16
_OUTPUT_BYTES = 1 << 18  # takes about 1 ms
_GZIP = 16 + zlib.MAX_WBITS


def unpacked_pieces(body: bytes, limit_bytes: int) -> Iterator[bytes]:
    """Yield *body* unpacked, in pieces of at most 256 KiB, of which some may be empty.

    Raises:
        BodyTooLargeError: Unpacked it is larger than *limit_bytes*.
        BadBodyError: It is not one complete gzip member.
    """
    unpacker = zlib.decompressobj(_GZIP)
    size = 0
    for start in range(0, len(body), _INPUT_BYTES):
        rest = body[start : start + _INPUT_BYTES]
        is_more = True
        while is_more:
            if unpacker.eof:
                raise BadBodyError("the gzip body goes on after its end")
            try:
                piece = unpacker.decompress(rest, _OUTPUT_BYTES)
            except zlib.error as error:
                raise BadBodyError(f"the body is not valid gzip: {error}") from error
            size += len(piece)
            if size > limit_bytes:
                raise BodyTooLargeError(limit_bytes)
            yield piece
            rest = unpacker.unconsumed_tail or unpacker.unused_data
            is_more = bool(rest) or (len(piece) == _OUTPUT_BYTES and not unpacker.eof)
    if not unpacker.eof:
        raise BadBodyError("the gzip body is cut off")
