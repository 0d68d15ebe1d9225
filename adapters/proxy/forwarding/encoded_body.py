"""JSON bodies with a byte order mark or a Content-Encoding: the model gets them without."""

from __future__ import annotations

import asyncio
from io import BytesIO

from ..body.errors import UnknownCodingError
from ..body.gzip_body import unpacked_pieces
from ..request import Request

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_GZIP = frozenset({b"gzip", b"x-gzip"})


_FIELD = b"content-encoding"


def coding_of(request: Request) -> bytes:
    """Return the Content-Encoding of *request* in lower case, or b"" if its body has none."""
    values = [value.strip().lower() for name, value in request.headers if name == _FIELD]
    return b", ".join(value for value in values if value not in (b"", b"identity"))


async def unpacked(request: Request, body: bytes, limit_bytes: int) -> bytes:
    """Return *body* unpacked, and remove what *request* says about its coding.

    Raises:
        UnknownCodingError: It is not gzip.
        BodyTooLargeError: Unpacked it is larger than *limit_bytes*.
        BodyBudgetError: The memory budget has no room for it.
        BadBodyError: It is not valid.
    """
    coding = coding_of(request)
    if coding not in _GZIP:
        shown = coding.decode("latin-1")[:40]
        raise UnknownCodingError(f"`Content-Encoding` {shown!r} is unknown: expected gzip, or none")
    request.watch()  # ends it if the client disconnects
    buffer = BytesIO()
    for piece in unpacked_pieces(body, limit_bytes):
        buffer.write(piece)
        await request.reserve(len(body) + buffer.tell())
        await asyncio.sleep(0)
    request.headers = [field for field in request.headers if field[0] != _FIELD]
    return buffer.getvalue()
