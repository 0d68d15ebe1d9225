"""Encoding of the head of an HTTP/1.1 response: status line and header fields. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from http import HTTPStatus

_FRAMING = frozenset({b"connection", b"content-length", b"keep-alive", b"transfer-encoding"})
_INSPECTED = _FRAMING | {b"date", b"x-request-id"}
_BREAKING = b"\r\n\0"
_LENGTH = b"\r\ncontent-length: "


def status_line(status: int) -> bytes:
    """Return the status line of a response, with its CRLF.

    Raises:
        ValueError: The status is not in 200..599.
    """
    if not 200 <= status <= 599:
        raise ValueError(f"expected a status of 200..599, got {status}")
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = ""
    return f"HTTP/1.1 {status} {phrase}\r\n".encode("ascii")


_STATUS_LINES = {s.value: status_line(s.value) for s in HTTPStatus if s.value >= 200}


class EncodedHead:
    """Encoded head of a response that is sent again, each time with another Content-Length.

    Attributes:
        has_date: It has a Date.
        closes: The application asks for the connection to be closed.
    """

    __slots__ = ("_after", "_before", "closes", "has_date")

    def __init__(self, status: int, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Encode *headers*, of which one is a Content-Length; see `encode_head`.

        Raises:
            ValueError: As `encode_head`.
        """
        head, date, length, self.closes = encode_head(status, headers, _BREAKING)
        self.has_date = not date
        at = head.lower().index(_LENGTH) + len(_LENGTH)
        self._before, self._after = head[:at], head[at + len(length or b"") :]

    def with_length(self, length: int) -> bytes:
        """Return the encoded lines, with the Content-Length of a body of *length* bytes."""
        return b"%b%d%b" % (self._before, length, self._after)


def encode_head(
    status: int, headers: Iterable[tuple[bytes, bytes]], date: bytes
) -> tuple[bytes, bytes, bytes | None, bool]:
    """Encode the status line and all fields but those that frame the response.

    ``Connection``, ``Keep-Alive`` and ``Transfer-Encoding`` of the application are left out,
    since the server decides about its connection, and ``X-Request-ID``, which it adds; so is the
    ``Content-Length`` of a 204.

    Args:
        status: Of the response; 200..599.
        headers: The application's fields; shape (n, 2), any case.
        date: The complete Date field with its CRLF.

    Returns:
        The encoded lines, each with its CRLF; *date*, b"" if *headers* have a date already; the
        value of ``Content-Length``, None without one; and True if the application asks for the
        connection to be closed.

    Raises:
        ValueError: The status is out of range, or a field contains CR, LF or NUL.
    """
    parts = [_STATUS_LINES.get(status) or status_line(status)]
    announced: bytes | None = None
    closes = False
    for name, value in headers:
        low = name.lower()
        if low in _INSPECTED:
            if low == b"content-length":
                announced = value
                if status == 204:
                    continue
            elif low == b"date":
                date = b""
            else:
                if low == b"connection" and value.lower() == b"close":
                    closes = True
                continue
        parts += (name, b": ", value, b"\r\n")
    head = b"".join(parts)
    if len(head) - len(head.translate(None, _BREAKING)) != (len(parts) + 3) // 2:
        raise ValueError("CR, LF or NUL in the header fields of a response")
    return head, date, announced, closes
