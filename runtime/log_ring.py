"""The output of one process: a bounded ring of bytes, and live readers that can never slow it.

A reader that does not keep up loses bytes, and is told how many in its own stream.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, Callable

from .log_reader import LogReader, follow

_JOINED_BYTES = 1 << 11


class LogRing:
    """Keeps the last *limit_bytes* bytes and hands new ones to subscribers.

    Attributes:
        total_bytes: How much was ever written; bytes.
    """

    def __init__(self, limit_bytes: int = 1 << 20, *, forward: LogRing | None = None) -> None:
        self._limit = limit_bytes
        self._chunks: deque[bytes] = deque()
        self._size = 0
        self._readers: set[LogReader] = set()
        self._forward = forward
        self.total_bytes = 0
        self._watchers: tuple[Callable[[], None], ...] = ()

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
            self._chunks[-1] += kept  # many small ones take more room than they hold
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
        """Append one line of our own, such as a hook's outcome."""
        self.write(text.encode("utf-8", "replace") + b"\n")

    @property
    def is_watched(self) -> bool:
        """Tell whether anybody is called after a write."""
        return bool(self._watchers)

    def watch(self, watcher: Callable[[], None]) -> None:
        """Call *watcher* after each write, once however often it was asked for; it never raises."""
        self.unwatch(watcher)
        self._watchers += (watcher,)

    def unwatch(self, watcher: Callable[[], None]) -> None:
        """Call *watcher* no more; a no-op when it is not called."""
        self._watchers = tuple(each for each in self._watchers if each != watcher)

    def history(self) -> bytes:
        """Return what is kept; at most *limit_bytes* bytes."""
        return b"".join(self._chunks)[-self._limit :]

    def pieces(self) -> list[bytes]:
        """Return what is kept, in pieces; nothing but the first one is copied."""
        pieces = list(self._chunks)
        if self._size > self._limit:
            pieces[0] = pieces[0][self._size - self._limit :]
        return pieces

    def tail(self, lines: int) -> list[str]:
        """Return the last *lines* complete or partial lines as text."""
        recent: list[bytes] = []
        size = 0
        for chunk in reversed(self._chunks):
            recent.append(chunk)
            size += len(chunk)
            if size >= 16384:
                break
        text = b"".join(reversed(recent)).decode("utf-8", "replace")
        return text.splitlines()[-lines:]

    def stream(
        self, *, history: bool = True, limit_bytes: int = 1 << 18
    ) -> AsyncGenerator[bytes, None]:
        """Return what is kept (if *history*) and then what comes, for as long as it is read.

        Args:
            history: Begin with the bytes that are kept.
            limit_bytes: How much may wait for a slow reader; beyond it bytes are dropped and
                a line ``[N bytes dropped]`` stands in their place.
        """
        return follow(self, history=history, limit_bytes=limit_bytes)

    def add_reader(self, reader: LogReader) -> None:
        """Hand *reader* what comes from now on."""
        self._readers.add(reader)

    def discard_reader(self, reader: LogReader) -> None:
        """Hand it nothing more."""
        self._readers.discard(reader)
