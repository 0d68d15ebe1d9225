"""One saved slot as the manifest remembers it, and which of them are worth keeping. Pure."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from .token_file import common_prefix

_SAME_SHARE = 0.5
_WHOLE_SHARE = 0.98


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One saved slot.

    Attributes:
        file: Its name within the folder; made by us.
        fingerprint: Key of the fingerprint under which it was saved.
        tokens: How many; > 0.
        size: Of the file; bytes.
        sha256: Of the file; hexadecimal.
        saved_at: Wall clock, seconds since 1970.
        save_ms: How long it took to save, our part included.
        restore_ms: The same for its last restore; None before the first.
        misses: In how many runs it was not continued since it was saved.
        is_suspect: A restore of it began and has not ended: it may have crashed the server.
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
        """What it is worth: its tokens, halved for each run that did not continue it."""
        return self.tokens / 2.0 ** min(self.misses, 60)


def by_value(entries: Iterable[Entry]) -> list[Entry]:
    """Return *entries*, the most valuable first; among equals the newest."""
    return sorted(entries, key=lambda entry: (-entry.value, -entry.saved_at))


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What becomes of the entries of one fingerprint after a run.

    Attributes:
        kept: The most valuable first.
        dropped: Superseded, contained in another, or worth least.
    """

    kept: tuple[Entry, ...]
    dropped: tuple[Entry, ...]


def choose(
    old: Sequence[tuple[Entry, array[int] | None]],
    new: Sequence[tuple[Entry, array[int] | None]],
    limit: int,
) -> Choice:
    """Choose what to keep, so that no small prompt overwrites a valuable conversation.

    A new entry takes the place of the old one that it shares most with, if that is at least half
    of the old one: the conversation moved on. It also takes the place of every old one that it
    holds as good as whole. A new entry that is nothing but the beginning of an old one is dropped.
    What is left competes by value, and an old one that nothing continued is worth half of what it
    was. Where tokens are unknown, entries count as different conversations.

    Args:
        old: Entries of before the run, and their tokens.
        new: Entries saved at its end, and their tokens.
        limit: How many may be kept; >= 1.
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
        replace(entry, misses=entry.misses + 1) for entry, _ in old if entry.file not in gone
    ]  # fmt: skip
    kept = by_value([*aged, *fresh])[:limit]
    names = {entry.file for entry in kept}
    dropped = [entry for entry, _ in (*old, *new) if entry.file not in names]
    return Choice(kept=tuple(kept), dropped=tuple(dropped))
