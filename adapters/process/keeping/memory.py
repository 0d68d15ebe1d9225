"""Files in memory with which the guard keeps a run that may outlive the proxy."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

from ....dataclass import dataclass
from ....runtime.log_reader import LogReader
from ....runtime.log_ring import LogRing
from ....runtime.ports import LogSink
from . import guard_keeping


class RingReader(LogReader):
    """Reader of a log that keeps its last MiB for the next proxy.

    Args:
        fd: Descriptor of the ring.
    """

    def __init__(self, fd: int) -> None:
        self._ring = fd

    def offer(self, data: bytes, *, force: bool = False) -> None:
        """Append *data*; never waits and never raises."""
        guard_keeping.write_ring(self._ring, data)

    def end_section(self) -> None:
        """Do nothing: the ring keeps the output of all starts."""


@dataclass(slots=True, kw_only=True)
class Remembered:
    """Descriptors of one run that the guard receives.

    Attributes:
        pipe: Descriptor of its output; belongs to the reader of the output.
        ring: Descriptor of the ring of its last output.
        record: Descriptor of its record; -1 while the run may not outlive the proxy.
    """

    pipe: int
    ring: int
    record: int = -1
    _reader: RingReader | None = None

    @classmethod
    def of(cls, pipe: int, log: LogSink) -> Remembered:
        """Return a ring that follows *log*, and no record yet.

        Raises:
            OSError: There is no free descriptor or memory.
        """
        found = cls(pipe=pipe, ring=_in_memory("output", b""))
        found.follow(log)
        return found

    def follow(self, log: LogSink) -> None:
        """Keep the last output of *log* in the ring."""
        if isinstance(log, LogRing):
            self._reader = RingReader(self.ring)
            if not guard_keeping.read_ring(self.ring):
                self._reader.offer(log.history())
            log.add_reader(self._reader)

    def replace(self, record: Mapping[str, Any]) -> None:
        """Replace the record.

        Raises:
            OSError: There is no free descriptor or memory.
        """
        new = _in_memory("record", json.dumps(record).encode())
        self.close_record()
        self.record = new

    def close_record(self) -> None:
        """Drop the record, so that the run may not outlive the proxy."""
        if self.record >= 0:
            os.close(self.record)
        self.record = -1

    def close(self, log: LogSink) -> None:
        """Drop ring and record; the ring no longer follows *log*."""
        self.close_record()
        if self._reader is not None and isinstance(log, LogRing):
            log.discard_reader(self._reader)
        self._reader = None
        if self.ring >= 0:
            os.close(self.ring)
        self.ring = -1


def _in_memory(name: str, data: bytes) -> int:
    fd = os.memfd_create(f"swapchart-{name}")
    try:
        os.pwrite(fd, data, 0)
    except OSError:
        os.close(fd)
        raise
    return fd
