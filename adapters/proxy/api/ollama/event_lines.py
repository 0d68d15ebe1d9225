"""Server-sent events of a response that arrives in pieces of any size. Pure.

Source: WHATWG HTML, section 9.2.6; lines that end with CR alone are not recognized, which no
server of models sends.
"""

from __future__ import annotations

_LARGEST_BYTES = 16 << 20


class EventTooLargeError(Exception):
    """An event has no end within the limit."""


class EventLines:
    """Splits a stream of bytes into the data of its events."""

    def __init__(self) -> None:
        self._rest = bytearray()
        self._data: list[bytes] = []
        self._data_bytes = 0

    def feed(self, piece: bytes) -> list[bytes]:
        """Return the data of all events that *piece* completes; b"" stands for a comment.

        Raises:
            EventTooLargeError: An event is larger than 16 MiB.
        """
        found: list[bytes] = []
        *lines, rest = piece.split(b"\n")
        if lines:
            lines[0] = bytes(self._rest) + lines[0]
            self._rest.clear()
            for line in lines:
                self._take(line.removesuffix(b"\r"), found)
        self._rest += rest
        if len(self._rest) + self._data_bytes > _LARGEST_BYTES:
            raise EventTooLargeError(f"an event is larger than {_LARGEST_BYTES >> 20} MiB")
        return found

    def end(self) -> list[bytes]:
        """Return the data of an event without an empty line behind it."""
        found: list[bytes] = []
        self._take(bytes(self._rest).removesuffix(b"\r"), found)
        self._rest.clear()
        self._take(b"", found)
        return found

    def _take(self, line: bytes, found: list[bytes]) -> None:
        if not line:
            if self._data:
                found.append(b"\n".join(self._data))
                self._data.clear()
                self._data_bytes = 0
        elif line.startswith(b":"):
            found.append(b"")
        elif line.startswith(b"data:"):
            self._data.append(line[5:].removeprefix(b" "))
            self._data_bytes += len(line)
