"""Saved conversations as rows, for the command line and for the page. Pure."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable

from ....dataclass import dataclass
from ..entry import Entry
from ..library.conversation import Conversation


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedRow:
    """A saved conversation.

    Attributes:
        file: Name of its file within the folder of the model.
        tokens: Number of tokens; > 0.
        size: Size of the file; bytes.
        saved_at: Wall clock; seconds since 1970.
        misses: Number of times that it was of no use.
        verdict: Whether restores help the server that saved it.
        used_at: Last use by a request, in seconds since 1970; None for a saved slot.
        restores: Number of restores; None for a saved slot.
        saved_s: Prefill time that its restores have saved, in seconds; None for a saved slot.
        words: Beginning of the first text of its user; empty for a saved slot.
    """

    file: str
    tokens: int
    size: int
    saved_at: float
    misses: int
    verdict: str
    used_at: float | None = None
    restores: int | None = None
    saved_s: float | None = None
    words: str = ""

    @property
    def at(self) -> float:
        """Its last use as far as it is known; seconds since 1970."""
        return self.saved_at if self.used_at is None else self.used_at


def row_of_slot(entry: Entry, verdict: str) -> SavedRow:
    """Return the row of a saved slot."""
    return SavedRow(
        file=entry.file, tokens=entry.tokens, size=entry.size, saved_at=entry.saved_at,
        misses=entry.misses, verdict=verdict,
    )  # fmt: skip


def row_of_conversation(one: Conversation, verdict: str) -> SavedRow:
    """Return the row of a conversation of a library."""
    return SavedRow(
        file=one.file, tokens=one.tokens, size=one.size, saved_at=one.saved_at, misses=one.misses,
        verdict=verdict, used_at=one.used_at, restores=one.restores,
        saved_s=round(one.saved_ms / 1000, 3), words=one.words,
    )  # fmt: skip


def last_used(
    entries: Iterable[Entry], library: Iterable[Conversation], limit: int,
    verdict_of: Callable[[str], str],
) -> list[SavedRow]:  # fmt: skip
    """Return the *limit* rows that were used last, the latest first.

    Args:
        entries: Saved slots.
        library: Conversations of the library.
        limit: Maximum number of rows.
        verdict_of: Fingerprint -> verdict.
    """
    found = heapq.nlargest(limit, library, key=lambda one: one.used_at)
    rows = [row_of_slot(each, verdict_of(each.fingerprint)) for each in entries]
    rows += [row_of_conversation(one, verdict_of(one.fingerprint)) for one in found]
    return heapq.nlargest(limit, rows, key=lambda row: row.at)
