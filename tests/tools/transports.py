"""A transport without a socket: it only notes what is done to it."""

from __future__ import annotations

from collections.abc import Iterable


class Wire:
    """A transport that collects what a connection writes.

    Attributes:
        done: What was written, piece by piece, and "end" where it was closed, half or whole.
        is_over: It was.
    """

    def __init__(self) -> None:
        self.done: list[bytes | str] = []
        self.is_over = False

    @property
    def sent(self) -> bytes:
        """All that was written."""
        return b"".join(piece for piece in self.done if isinstance(piece, bytes))

    def write(self, data: bytes) -> None:
        assert not self.is_over
        self.done.append(data)

    def writelines(self, parts: Iterable[bytes]) -> None:
        self.write(b"".join(parts))

    def close(self) -> None:
        self.is_over = True
        self.done.append("end")

    abort = write_eof = close

    def can_write_eof(self) -> bool:
        return True

    def is_closing(self) -> bool:
        return self.is_over

    def pause_reading(self) -> None:
        pass

    resume_reading = pause_reading

    def get_write_buffer_size(self) -> int:
        return 0

    def get_extra_info(self, name: str) -> object:
        return ("127.0.0.1", 1) if name.endswith("name") else None
