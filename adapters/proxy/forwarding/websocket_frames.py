"""Position in a stream of WebSocket frames.

A tunnel passes bytes and looks at frame headers only: it has to know where a frame of its own may
stand, and that a side has begun to close. Payloads are skipped, never kept, unmasked or inflated.
A stream of tiny frames is not worth that: beyond `_BUSY_FRAMES` the position is given up.

Source: RFC 6455 sections 5.2 and 5.5.1.
"""

from __future__ import annotations

_CLOSE = 8
_SLICE_BYTES = 1 << 16
_BUSY_FRAMES = 1024  # in a slice: some 0.3 ms; without a limit 8 ms, for each of many tunnels


class FrameTracker:
    """Position in one direction of a connection, from the headers of its frames.

    Attributes:
        is_closing: True once a close frame has begun.
    """

    __slots__ = ("_head", "_is_lost", "_skip", "is_closing")

    def __init__(self) -> None:
        self._head = b""  # of a frame, cut off
        self._skip = 0  # bytes of the frame that are still to come
        self._is_lost = False
        self.is_closing = False

    @property
    def is_between(self) -> bool:
        """True if the next byte begins a frame."""
        return not (self._head or self._skip or self._is_lost)

    def feed(self, data: bytes) -> None:
        """Follow *data*; takes no longer for 512 KiB than 3 ms."""
        for at in range(0, len(data), _SLICE_BYTES):
            if self._is_lost:
                return
            if self._skip >= len(data) - at:
                self._skip -= len(data) - at
                return
            self._is_lost = not self._follow(data[at : at + _SLICE_BYTES])

    def _follow(self, data: bytes) -> bool:
        """Follow one slice; False: its frames are too many."""
        if self._head:
            data = self._head + data
            self._head = b""
        at, end, frames = self._skip, len(data), 0
        while at + 2 <= end:
            second = data[at + 1]
            size = second & 127
            head = 6 if second & 128 else 2
            if size >= 126:
                length = 2 if size == 126 else 8
                if at + 2 + length > end:
                    break
                size = int.from_bytes(data[at + 2 : at + 2 + length], "big")
                head += length
            if data[at] & 15 == _CLOSE:
                self.is_closing = True
            at += head + size
            frames += 1
            if frames > _BUSY_FRAMES:
                return False
        if at < end:
            self._head, self._skip = data[at:], 0
        else:
            self._skip = at - end
        return True


def close_frame(code: int, reason: str = "") -> bytes:
    """Return an unmasked close frame, as servers send it.

    Args:
        code: Status code, 1000..4999.
        reason: At most 123 bytes of UTF-8.
    """
    payload = code.to_bytes(2, "big") + reason.encode()
    return bytes([0x80 | _CLOSE, len(payload)]) + payload
