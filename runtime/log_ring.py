"""Log ring: the last output of a process, with live readers that can never slow it down.

A reader that does not keep up loses bytes, and a line in its stream gives their number. A log has
numbered sections, one for each run of the process.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, Callable

from .arguments import require_count, require_kind
from .log_reader import LogReader, follow

_JOINED_BYTES = 1 << 11
_MOST_SECTIONS = 64  # whose beginnings are known


class LogRing:
    """Keeps the last *limit_bytes* bytes and passes new ones to readers.

    Args:
        limit_bytes: Number of bytes that are kept.
        forward: Another ring that gets every write too.

    Attributes:
        total_bytes: Number of bytes that were ever written.
    """

    def __init__(self, limit_bytes: int = 1 << 20, *, forward: LogRing | None = None) -> None:
        require_count("limit_bytes", limit_bytes)
        require_kind("forward", forward, LogRing, "a LogRing", or_none=True)
        self._limit = limit_bytes
        self._chunks: deque[bytes] = deque()
        self._size = 0
        self._readers: set[LogReader] = set()
        self._forward = forward
        self.total_bytes = 0
        self._watchers: tuple[Callable[[], None], ...] = ()
        self._sections: deque[tuple[int, int]] = deque(maxlen=_MOST_SECTIONS)

    def resize(self, limit_bytes: int) -> None:
        """Keep the last *limit_bytes* bytes from the next write on."""
        self._limit = limit_bytes

    def write(self, data: bytes) -> None:
        """Append *data*, dropping the oldest bytes beyond the limit."""
        if not data:
            return
        self.total_bytes += len(data)
        kept = data[-self._limit :]
        if self._chunks and len(self._chunks[-1]) + len(kept) <= _JOINED_BYTES:
            self._chunks[-1] += kept  # many small objects need more memory than their bytes
        else:
            self._chunks.append(kept)
        self._size += len(kept)
        while self._chunks and self._size - len(self._chunks[0]) >= self._limit:
            self._size -= len(self._chunks.popleft())
        for reader in self._readers:
            reader.offer(data)
        if self._forward is not None:
            self._forward.write(data)
        for watcher in self._watchers:
            watcher()

    def line(self, text: str) -> None:
        """Append one line of the proxy itself, such as the outcome of a hook."""
        self.write(text.encode("utf-8", "replace") + b"\n")

    @property
    def is_watched(self) -> bool:
        """True if a watcher is called after each write."""
        return bool(self._watchers)

    def watch(self, watcher: Callable[[], None]) -> None:
        """Call *watcher* after each write, once if added repeatedly; it must not raise."""
        self.unwatch(watcher)
        self._watchers += (watcher,)

    def unwatch(self, watcher: Callable[[], None]) -> None:
        """Remove *watcher*; a no-op if it was not added."""
        self._watchers = tuple(each for each in self._watchers if each != watcher)

    def history(self) -> bytes:
        """Return the bytes that are kept, at most *limit_bytes*."""
        return b"".join(self._chunks)[-self._limit :]

    def pieces(self) -> list[bytes]:
        """Return the bytes that are kept, in pieces; only the first one may be copied."""
        pieces = list(self._chunks)
        if self._size > self._limit:
            pieces[0] = pieces[0][self._size - self._limit :]
        return pieces

    # ---- sections
    def begin_section(self, number: int) -> None:
        """Let section *number* begin here; streams of the section before end."""
        self._sections.append((number, self.total_bytes))
        for reader in list(self._readers):
            reader.end_section()

    def section(self, number: int) -> list[bytes] | None:
        """Return what is kept of a section, in pieces; None if no such section is known."""
        bounds = self._bounds(number)
        if bounds is None:
            return None
        begin, end = bounds
        found: list[bytes] = []
        pieces = self.pieces()
        at = self.total_bytes - sum(map(len, pieces))
        for piece in pieces:
            low, high = max(begin - at, 0), min(end - at, len(piece))
            if low < high:
                found.append(piece[low:high])
            at += len(piece)
        return found

    def section_bytes(self, number: int) -> int | None:
        """Return how many bytes a section has, kept or not; None if no such section is known."""
        bounds = self._bounds(number)
        return None if bounds is None else bounds[1] - bounds[0]

    def is_open(self, number: int) -> bool:
        """Return True if section *number* is the last one, so that more may come."""
        return bool(self._sections) and self._sections[-1][0] == number

    def _bounds(self, number: int) -> tuple[int, int] | None:
        end = self.total_bytes
        for known, begin in reversed(self._sections):
            if known == number:
                return begin, end
            end = begin
        return None

    def tail(self, lines: int, *, since_bytes: int = 0) -> list[str]:
        """Return the last *lines* complete or partial lines as text.

        Args:
            lines: Maximum number of lines.
            since_bytes: An earlier `total_bytes`; bytes that were written before are left out.
        """
        recent: list[bytes] = []
        size = 0
        added = self.total_bytes - since_bytes
        for chunk in reversed(self._chunks):
            recent.append(chunk)
            size += len(chunk)
            if size >= max(16384, lines * 256):
                break
        data = b"".join(reversed(recent))
        text = data[max(size - added, 0) :].decode("utf-8", "replace")
        return text.splitlines()[-lines:]

    def stream(
        self, *, history: bool = True, section: int | None = None, limit_bytes: int = 1 << 18
    ) -> AsyncGenerator[bytes, None]:
        """Yield the bytes that are kept (if *history*), then later ones without end.

        Args:
            history: Begin with the bytes that are kept.
            section: Yield the bytes of this section only, and end with it.
            limit_bytes: Maximum number of unread bytes of a slow reader; beyond it bytes are
                dropped and replaced by a line ``[N bytes dropped]``.
        """
        return follow(self, history=history, section=section, limit_bytes=limit_bytes)

    def add_reader(self, reader: LogReader) -> None:
        """Attach *reader*: it gets every later write."""
        self._readers.add(reader)

    def discard_reader(self, reader: LogReader) -> None:
        """Detach *reader*; a no-op if it is not attached."""
        self._readers.discard(reader)
