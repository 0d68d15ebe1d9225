"""Standard output and standard error of a server, written without waiting for a reader.

A pipe that is not read, or a terminal that was stopped by Ctrl-S, blocks its writer. The event
loop writes log lines, so such a reader would stop every request. Lines therefore go into a bounded
queue, and a thread of its own writes them. Lines that do not fit are counted, and the count is
written in their place.

If no thread can be started, a line is written at once if the kernel accepts it without waiting.
"""

from __future__ import annotations

import errno
import io
import os
import select
import sys
import threading
from _thread import start_new_thread
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from queue import SimpleQueue
from time import monotonic, sleep

_QUEUE_BYTES, _QUEUE_LINES = 1 << 20, 1 << 14
_LINE_BYTES = 1 << 16  # longer lines are cut: one line must not push out all others
_PIECE_BYTES = select.PIPE_BUF  # the kernel reports a pipe as writable if this many bytes fit
_THREAD_AGAIN_S = 5.0  # delay before another attempt to start the thread
_FLUSH_S, _STUCK_S = 2.0, 0.5  # limits at the end: in all, and without progress
_TELL_S = 1.0  # least interval between two counts of dropped lines under load
_CUT = b" [cut]\n"


class Outlet:
    """File descriptor that another process reads, with a queue in front of it.

    Args:
        fd: Stays open; the outlet does not own it.
        limit_bytes: Maximum size of the queue.

    Attributes:
        dropped: Number of lines lost since the start, because the queue or the disk was full.
    """

    def __init__(self, fd: int, limit_bytes: int = _QUEUE_BYTES) -> None:
        self.fd = fd
        self.dropped = 0
        self._limit = limit_bytes
        # A destructor or a signal handler may put into this queue in the middle of another put.
        # Each count only grows, and the second has one writer at a time.
        self._lines: SimpleQueue[bytes] = SimpleQueue()
        self._put_bytes = self._taken_bytes = 0
        self._rest = b""
        self._is_notice = self._is_failing = False
        self._told, self._told_at = 0, 0.0
        self._writing = threading.Lock()
        self._has_thread = self._is_closed = False
        self._thread_due = 0.0

    def put(self, line: bytes) -> None:
        """Write *line* soon; never waits, never raises."""
        if len(line) > _LINE_BYTES:
            line = line[: _LINE_BYTES - len(_CUT)] + _CUT
        waiting = self._put_bytes - self._taken_bytes
        if waiting + len(line) > self._limit or self._lines.qsize() >= _QUEUE_LINES:
            self.dropped += max(line.count(b"\n"), 1)
        else:
            self._put_bytes += len(line)
            self._lines.put(line)
        if not self._has_thread:
            self._begin_thread()
            self._write_what_fits()

    def close(self) -> bool:
        """Write the queue, for a bounded time; return False if the reader accepts nothing.

        Later lines are written only if they are accepted at once.
        """
        began = moved_at = monotonic()
        left = self._left()
        while left and monotonic() - began < _FLUSH_S and monotonic() - moved_at < _STUCK_S:
            if not self._has_thread:
                self._write_what_fits()
            sleep(0.002)
            if self._left() != left:
                left, moved_at = self._left(), monotonic()
        self._is_closed = True
        self._lines.put(b"")  # the thread ends, unless it is stuck
        return not left

    def _left(self) -> int:
        return self._put_bytes - self._taken_bytes + self.dropped - self._told

    def _begin_thread(self) -> None:
        now = monotonic()
        if self._is_closed or now < self._thread_due:
            return
        self._thread_due = now + _THREAD_AGAIN_S
        with suppress(RuntimeError, MemoryError):  # the limit of processes, or of memory
            start_new_thread(self._run, ())  # Thread.start would wait for a thread that may fail

    def _run(self) -> None:
        with self._writing:
            self._has_thread = True
            try:
                while not self._is_closed:
                    self._write(self._next() or self._lines.get())
            finally:
                self._has_thread = False

    def _write_what_fits(self) -> None:
        """Write in this thread, and only what the kernel takes without waiting."""
        if not self._writing.acquire(blocking=False):
            return
        try:
            poll = select.poll()
            poll.register(self.fd, select.POLLOUT)
            while (data := self._next()) and poll.poll(0):
                self._write(data[:_PIECE_BYTES])
        finally:
            self._writing.release()

    def _write(self, data: bytes) -> None:
        self._rest = self._rest or data
        try:
            count = os.write(self.fd, data)
            self._is_failing = False
        except BlockingIOError:  # another process has made it non-blocking
            select.select([], [self.fd], [], 1.0 if self._has_thread else 0.0)
            return
        except OSError as error:
            count, self._is_failing = len(self._rest), True
            is_gone = error.errno == errno.EPIPE  # the reader is gone: nothing more can be written
            self.dropped += not (is_gone or self._is_notice)
        self._rest = self._rest[count:]
        self._taken_bytes += count

    def _next(self) -> bytes:
        """Return the next data to write, which may be the count of dropped lines."""
        if self._rest:
            return self._rest
        now, is_last = monotonic(), self._lines.empty()
        is_due = (is_last or now - self._told_at > _TELL_S) and not self._is_failing
        self._is_notice = is_due and self.dropped != self._told
        if self._is_notice:
            count, self._told, self._told_at = self.dropped - self._told, self.dropped, now
            lines = f"{count} log line{'s' * (count != 1)}"
            self._rest = f"[{lines} dropped: the reader was too slow or the disk full]\n".encode()
            self._put_bytes += len(self._rest)
        elif not is_last:
            self._rest = self._lines.get()
        return self._rest


class OutletStream(io.TextIOBase):
    """Text file in front of an outlet, for ``sys.stderr`` and ``sys.stdout``.

    Args:
        outlet: Receives the lines.
        original: File that it replaces; asked for its properties and never written to.
    """

    def __init__(self, outlet: Outlet, original: io.TextIOBase) -> None:
        self.outlet, self._original = outlet, original
        self._begun = ""

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """Name of the encoding."""
        return self._original.encoding or "utf-8"

    @property
    def errors(self) -> str:  # type: ignore[override]
        """Error handler for characters that the encoding lacks."""
        return "backslashreplace"

    def write(self, text: str) -> int:
        """Accept *text* and pass whole lines on."""
        lines, mark, rest = (self._begun + text).rpartition("\n")
        self._begun = rest
        if mark:
            self._put(lines + mark)
        return len(text)

    def flush(self) -> None:
        """Pass on an incomplete line; never waits."""
        begun, self._begun = self._begun, ""
        if begun:
            self._put(begun)

    def _put(self, text: str) -> None:
        self.outlet.put(text.encode(self.encoding, self.errors))

    def fileno(self) -> int:
        """Return the descriptor behind it."""
        return self.outlet.fd

    def isatty(self) -> bool:
        """Return True if it is a terminal."""
        return self._original.isatty()

    def writable(self) -> bool:
        """Return True."""
        return True


def dropped_lines() -> int:
    """Return how many lines of standard output and standard error have been dropped."""
    streams: tuple[object, ...] = (sys.stdout, sys.stderr)
    return sum(each.outlet.dropped for each in streams if isinstance(each, OutletStream))


@contextmanager
def never_waiting() -> Iterator[None]:
    """Make writes to standard output and standard error non-blocking within the block.

    At the end the queues are written, for two seconds at most. A descriptor whose reader accepts
    nothing is then replaced by the null device, because the interpreter writes there as it exits.
    """
    names = [name for name in ("stdout", "stderr") if _has_descriptor(getattr(sys, name))]
    originals = {name: getattr(sys, name) for name in names}
    for name, original in originals.items():
        original.flush()
        setattr(sys, name, OutletStream(Outlet(original.fileno()), original))
    try:
        yield
    finally:
        for name, original in originals.items():
            stream = getattr(sys, name)
            if isinstance(stream, OutletStream):
                stream.flush()
                if not stream.outlet.close():
                    _give_up(stream.outlet.fd)
                setattr(sys, name, original)


def _has_descriptor(stream: object) -> bool:
    if isinstance(stream, OutletStream) or stream is None:
        return False
    with suppress(OSError, AttributeError, ValueError):
        return stream.fileno() >= 0  # type: ignore[attr-defined, no-any-return]
    return False


def _give_up(fd: int) -> None:
    with suppress(OSError):
        null = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
        os.dup2(null, fd)
        os.close(null)
