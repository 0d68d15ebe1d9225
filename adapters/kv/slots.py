"""Slots of a server as values, and the error of a slot action."""

from __future__ import annotations

from ...dataclass import dataclass


class SlotError(Exception):
    """The server responded with an error or with an unexpected value.

    Attributes:
        status: HTTP status.
    """

    def __init__(self, what: str, status: int, detail: str) -> None:
        super().__init__(f"{what}: status {status}: {detail}")
        self.status = status


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """Entry of ``/slots``.

    Attributes:
        number: Number of the slot, from 0.
        was_used: It has served a request since the start of the server or since its restore.
        is_busy: It serves a request now.
        tokens: Tokens in its cache after its last request; None if this build does not report it.
        lora: Adapters of its last request, as JSON.
        task: Number of its last request; None before the first.
    """

    number: int
    was_used: bool
    is_busy: bool
    tokens: int | None
    lora: str = "[]"
    task: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotTransfer:
    """Response to a save or a restore.

    Attributes:
        tokens: Number of tokens saved or restored.
        size: Bytes written or read.
        ms: Time from request to response.
        stall_ms: Time for which the server did nothing else.
    """

    tokens: int
    size: int
    ms: float
    stall_ms: float
