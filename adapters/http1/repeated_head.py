"""Head of a message that its sender repeats, with another Content-Length at most. Pure.

A client sends the same target and fields with each of its requests, and a server the same status
line and fields with most of its responses. A parser that has accepted such a head accepts it again,
so its bytes are compared instead: that takes a tenth of the time.

Only a message that has a Content-Length and arrives complete, with nothing behind it, is
recognized. Everything else is left to the parser, which has then seen none of its bytes.
"""

from __future__ import annotations

from itertools import chain

Fields = list[tuple[bytes, bytes]]

TRIES = 8
"""Heads in a row that are remembered without use before a sender counts as one that varies them."""

_MAX_BYTES = 1 << 12  # longer heads are not remembered
_MAX_DIGITS = 12  # of a Content-Length
_LENGTH = b"\r\ncontent-length:"
_CODING = b"\r\ntransfer-encoding:"
_END = b"\r\n\r\n"


class RepeatedFields:
    """Fields of a head, of which only the Content-Length differs from one message to the next."""

    __slots__ = ("_after", "_at", "_before", "_fields")

    def __init__(self, fields: Fields) -> None:
        """Remember *fields*, of which one is a Content-Length."""
        at = [name.lower() for name, _ in fields].index(b"content-length")
        self._fields, self._at = fields.copy(), at
        self._before = packed([*fields[:at], (fields[at][0], b"")])
        self._after = packed([(b"", b""), *fields[at + 1 :]])[1:]

    def with_length(self, length: bytes) -> Fields:
        """Return the fields of a message with that Content-Length, in a list of its own."""
        fields = self._fields.copy()
        fields[self._at] = (fields[self._at][0], length)
        return fields

    def packed(self, length: bytes) -> bytes:
        """Return the same fields as the function `packed` does."""
        return self._before + length + self._after


def packed(fields: Fields) -> bytes:
    """Return *fields* as one object, since each of many objects costs time to free."""
    return b"\0".join(chain.from_iterable(fields))  # no field contains a NUL


class RepeatedHead:
    """Bytes of a head around the digits of its Content-Length.

    Attributes:
        fields: Its fields.
        derived: What the application has derived from the head, for itself; None at first.
    """

    __slots__ = ("_after", "_before", "derived", "fields")

    def __init__(self, before: bytes, after: bytes, fields: Fields) -> None:
        """Remember a head.

        Args:
            before: Its bytes up to the digits.
            after: Its bytes behind them, with the empty line.
            fields: Its fields; exactly one is a Content-Length.
        """
        self._before, self._after = before, after
        self.fields = RepeatedFields(fields)
        self.derived: object = None

    def split(self, data: bytes) -> tuple[bytes, bytes] | None:
        """Return the Content-Length and the body of *data* if it is a message with this head.

        None means that it is not, or not complete, or that something stands behind it.
        """
        before, after = self._before, self._after
        if not data.startswith(before):
            return None
        at = len(before)
        end = data.find(b"\r", at, at + _MAX_DIGITS + 1)
        if end < 0 or not data.startswith(after, end):
            return None
        body_at = end + len(after)
        length = b"%d" % (len(data) - body_at)
        return (length, data[body_at:]) if data[at:end] == length else None


def parts_of_head(data: bytes, head_bytes: int) -> tuple[bytes, bytes] | None:
    """Return the bytes around the Content-Length in the head of *data*.

    None means that such a head is not recognized when it comes again.

    Args:
        data: A complete message that a parser has accepted, and nothing else.
        head_bytes: Size of its head, by the number of bytes that the parser took for the body.
    """
    if head_bytes > _MAX_BYTES or data[head_bytes - len(_END) : head_bytes] != _END:
        return None
    head = data[:head_bytes]
    lower = head.lower()
    at = lower.find(_LENGTH)
    if at < 0 or lower.find(_LENGTH, at + 1) >= 0 or lower.find(_CODING) >= 0:
        return None
    start = at + len(_LENGTH)
    while head[start : start + 1] in (b" ", b"\t"):
        start += 1
    end = head.find(b"\r", start)
    is_plain = head[start:end] == b"%d" % (len(data) - head_bytes)
    return (head[:start], head[end:]) if is_plain else None
