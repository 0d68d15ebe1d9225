"""Entries of the manifest, one for each saved slot, and the choice of which to keep. Pure."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import replace

from ...dataclass import dataclass
from .token_file import common_prefix

_SAME_SHARE = 0.5
_WHOLE_SHARE = 0.98


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One saved slot.

    Attributes:
        file: File name within the folder, made by us.
        fingerprint: Key of the fingerprint under which it was saved.
        tokens: Number of tokens; > 0.
        size: Size of the file; bytes.
        sha256: Checksum of the file; hexadecimal.
        saved_at: Wall clock; seconds since 1970.
        save_ms: Duration of the save, including our part.
        restore_ms: Duration of its last restore; None before the first.
        misses: Number of runs since the save in which it was not continued.
        is_suspect: A restore of it began and did not end; it may have crashed the server.
    """

    file: str
    fingerprint: str
    tokens: int
    size: int
    sha256: str
    saved_at: float
    save_ms: float
    restore_ms: float | None = None
    misses: int = 0
    is_suspect: bool = False

    @property
    def value(self) -> float:
        """Number of tokens, halved for each run that did not continue it."""
        return self.tokens / 2.0 ** min(self.misses, 60)


def by_value(entries: Iterable[Entry]) -> list[Entry]:
    """Return *entries*, most valuable first; among equals the newest first."""
    return sorted(entries, key=lambda entry: (-entry.value, -entry.saved_at))


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """Outcome of a run for the entries of one fingerprint.

    Attributes:
        kept: Entries to keep, most valuable first.
        dropped: Entries that are superseded, contained in another, or least valuable.
    """

    kept: tuple[Entry, ...]
    dropped: tuple[Entry, ...]


def choose(
    old: Sequence[tuple[Entry, array[int] | None]],
    new: Sequence[tuple[Entry, array[int] | None]],
    limit: int,
    *,
    is_end: bool = True,
) -> Choice:
    """Choose the entries to keep, so that no small prompt overwrites a valuable conversation.

    A new entry replaces the old one that it shares most with, if that is at least half of the old
    one: the conversation continued. It also replaces every old one that it contains almost
    completely. A new entry that is only the beginning of an old one is dropped. The rest competes
    by value, and an old entry that no conversation continued has half its former value. Entries
    with unknown tokens count as different conversations.

    Args:
        old: Entries from before the run, with their tokens.
        new: Entries saved at its end, with their tokens.
        limit: Maximum number of entries; >= 1.
        is_end: The run has ended; else *new* are checkpoints, and old entries do not lose value.
    """
    gone: set[str] = set()
    fresh: list[Entry] = []
    for entry, tokens in new:
        shares = {
            past.file: (common_prefix(before, tokens), past.tokens)
            for past, before in old
            if before is not None and tokens is not None
        }
        if any(shared == entry.tokens < count for shared, count in shares.values()):
            continue
        best = max(shares, key=lambda file: shares[file][0], default=None)
        for file, (shared, count) in shares.items():
            if shared >= (_SAME_SHARE if file == best else _WHOLE_SHARE) * count:
                gone.add(file)
        fresh.append(entry)
    aged = [
        replace(entry, misses=entry.misses + is_end) for entry, _ in old if entry.file not in gone
    ]  # fmt: skip
    kept = by_value([*aged, *fresh])[:limit]
    names = {entry.file for entry in kept}
    dropped = [entry for entry, _ in (*old, *new) if entry.file not in names]
    return Choice(kept=tuple(kept), dropped=tuple(dropped))
