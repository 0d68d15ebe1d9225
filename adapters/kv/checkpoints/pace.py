"""Limits of background saves of one model."""

from __future__ import annotations

import time

from .idle import IdleTime
from .policy import SHORT_SAVE_MS, Collisions, SaveSpeed, WriteBudget, quiet_s


class Pace:
    """Limits of background saves, shared by all processes of one model.

    Attributes:
        budget: Bytes that may still be written.
        speed: Expected length of a save.
        collisions: Requests that met long saves.
    """

    def __init__(self, write_budget: int) -> None:
        self.budget = WriteBudget(write_budget, time.monotonic())
        self.speed = SaveSpeed()
        self.collisions = Collisions()

    async def may_save(self, size: int, idle: IdleTime) -> bool:
        """Wait until *size* bytes may be saved; False if a request comes first, or they may not."""
        now = time.monotonic()
        if not self.budget.allows(size, now):
            return False
        pause_s = quiet_s(self.speed.expected_ms(size), self.collisions)
        return pause_s is not None and await idle.wait_quiet(pause_s)

    def note(self, size: int, stall_ms: float) -> None:
        """Note a save of *size* bytes, which stalled the server for *stall_ms*."""
        self.budget.spend(size, time.monotonic())
        self.speed.note(size, stall_ms)

    def note_background(self, stall_ms: float, idle: IdleTime) -> None:
        """Note that a save in the background has ended; a request may have come meanwhile."""
        if stall_ms > SHORT_SAVE_MS and not idle.is_idle:
            self.collisions.met += 1
