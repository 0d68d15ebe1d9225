"""Writes that wait for the end of the event loop's turn, and go out one after another.

A turn under load has read from many sockets. Written at once, each answer finds its reader asleep,
and waking it costs more than sending; and between two calls of the kernel lies all of the work on a
request, which drives the kernel out of the processor's caches. Written together they cost a third
less. What comes alone is written at once: to wait would only cost time.
"""

from __future__ import annotations

import asyncio
import logging
from time import perf_counter
from typing import Protocol

log = logging.getLogger(__name__)

_MANY = 64  # senders that wait at most: the first of a long turn is not to wait for all of it
_BUSY_S = 50e-6  # what follows the one before within that time does not come alone


class BatchedWriter(Protocol):
    """Holds what it has to send."""

    def send_held(self) -> None:
        """Send it; nothing may be left of it by now."""

    def give_up(self) -> None:
        """Sending failed, which no transport tells of: whoever waits is to hear of it."""


class WriteBatch:
    """The senders that hold something; of one event loop."""

    __slots__ = ("_at", "_is_busy", "_senders")

    def __init__(self) -> None:
        self._senders: list[BatchedWriter] = []
        self._is_busy = False  # several had come in the last turn that waited
        self._at = 0.0  # when the last one came that did not wait; on the performance counter

    def add(self, loop: asyncio.AbstractEventLoop, sender: BatchedWriter) -> None:
        """Let *sender* send, at the end of this turn of *loop* at the latest."""
        senders = self._senders
        if not senders:
            if not self._is_busy:
                before, self._at = self._at, perf_counter()
                if self._at - before > _BUSY_S:
                    sender.send_held()
                    return
            loop.call_soon(self.flush)
        senders.append(sender)
        if len(senders) >= _MANY:
            self.flush()

    def flush(self) -> None:
        """Let all of them send."""
        senders, self._senders = self._senders, []
        if senders:  # else they were many, and have sent
            self._is_busy = len(senders) > 1
        for sender in senders:
            try:
                sender.send_held()
            except Exception:  # of one; others are not to wait for ever
                log.exception("sending failed")
                sender.give_up()
