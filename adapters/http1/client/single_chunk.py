"""Recognition of data that is exactly one chunk of a chunked body, by its size and its ends.

Servers write an event as one chunk in one packet. Its framing follows from its size, unless a
server writes sizes in an unusual way, so it need not be parsed; see RFC 9112 section 7.1.
"""

from __future__ import annotations

_MAX_BYTES = 1 << 13  # of a chunk that is recognized; larger ones are worth parsing
_END = b"\r\n"

#: Size of a chunk with its framing -> its first line; b"" if no chunk has that size. Filled as
#: sizes come.
_first_lines: dict[int, bytes] = {}


def payload_of(data: bytes) -> bytes | None:
    """Return the payload of *data* if that is one chunk, not the last; else None.

    None says nothing about *data*: it has to be parsed.
    """
    size = len(data)
    line = _first_lines.get(size)
    if line is None:
        if size > _MAX_BYTES:
            return None
        line = _first_lines[size] = _first_line(size)
    if line and data.startswith(line) and data.endswith(_END):
        return data[len(line) : -2]
    return None


def _first_line(size: int) -> bytes:
    """Return the first line of a chunk of *size* bytes with its framing, b"" if there is none."""
    for digits in range(1, 5):
        length = size - digits - 4
        line = b"%x\r\n" % max(length, 0)
        if length > 0 and len(line) == digits + 2:
            return line
    return b""
