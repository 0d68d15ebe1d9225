"""Input of a connection that is not parsed yet, and whether its transport reads.

Bytes wait here while an earlier request is being served, or while the application does not take
the body. Above its limit the buffer pauses the transport.

A client of another machine that closes while the receive window is full cannot send its FIN: it
stands behind the bytes that are not read (4 MiB at most, by default). So a client that stays
paused is lent room for more, out of one budget for all connections.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from .validation import H1Limits

_ROOM_STEP_BYTES = 1 << 21  # lent at a time to a client that is stuck


class InputBudget(Protocol):
    """Memory that connections may use beyond their limits."""

    spare: int  # bytes


class InputBuffer:
    """Unparsed input of one connection.

    Attributes:
        unparsed: Bytes that were read and not parsed.
        room: Bytes that it may hold beyond its limit; lent by the budget.
        is_paused: More waits than the limit allows; True also while the client is read from into
            lent room.
        is_stuck: It was paused when it was checked last.
        transport: Of the connection; set when the connection is made.
    """

    __slots__ = (
        "_budget", "_is_reading_paused", "_limits", "is_paused", "is_stuck", "room", "transport",
        "unparsed",
    )  # fmt: skip

    def __init__(self, limits: H1Limits, budget: InputBudget) -> None:
        self.transport: asyncio.Transport
        self.unparsed = bytearray()
        self.room = 0
        self.is_paused = False
        self.is_stuck = False
        self._is_reading_paused = False
        self._limits = limits
        self._budget = budget

    def adjust(self, body_bytes: int) -> None:
        """Pause or resume the transport, by what waits.

        Args:
            body_bytes: Bytes of the current body that the application has not taken.
        """
        limits, waiting = self._limits, len(self.unparsed)
        is_full = waiting > limits.ahead_bytes or body_bytes > limits.body_bytes
        if self.transport.is_closing():
            return
        if is_full != self.is_paused:
            self.is_paused = is_full
            self.is_stuck = False
        pauses = is_full and waiting >= self.room
        if pauses != self._is_reading_paused:
            self._is_reading_paused = pauses
            if pauses:
                self.transport.pause_reading()
            else:
                self.transport.resume_reading()

    def extend(self, body_bytes: int) -> None:
        """Lend room to a client that has stayed paused since the last call; then read on."""
        budget = self._budget
        if self.is_stuck and self._is_reading_paused:
            more = min(_ROOM_STEP_BYTES, self._limits.stuck_bytes - self.room, budget.spare)
            if more > 0:
                budget.spare -= more
                self.room += more
                self.adjust(body_bytes)
        self.is_stuck = True

    def clear(self) -> None:
        """Drop what waits, and return the room that was lent."""
        self.unparsed.clear()
        self._budget.spare += self.room
        self.room = 0

    def resume(self) -> None:
        """Read on, whatever waits: from now on the caller throws all input away."""
        if self._is_reading_paused:
            self._is_reading_paused = self.is_paused = False
            self.transport.resume_reading()
