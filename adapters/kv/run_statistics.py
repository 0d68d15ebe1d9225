"""What one run of a server proves about its restores. Pure.

Only reuse that nothing else explains is a proof: an answer may also reuse what an earlier answer
of the same run had read. And only a run in which every answer was seen can disprove anything.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from dataclasses import dataclass, field

from .effectiveness import CacheUsage, Effectiveness
from .entry import Entry
from .token_file import common_prefix

_HIT, _PART = 0.5, 0.1
_CONTINUED = 0.9
_WATCHED = 16

Saved = tuple[Entry, "array[int] | None"]


@dataclass(slots=True, kw_only=True)
class RunStatistics:
    """One run of a server, from its restore to its save.

    Attributes:
        fingerprint: Key of what the server is; empty before that is known.
        restored: Slot number -> what was restored into it.
        is_proven: An answer came or a save was made since: the restore did not crash it.
        ended: How many requests ended since, seen or not.
        watched: How many answers were looked at.
    """

    fingerprint: str = ""
    restored: dict[int, Entry] = field(default_factory=dict)
    is_proven: bool = False
    ended: int = 0
    watched: int = 0
    _explained: int = 0
    _is_decided: bool = False

    @property
    def is_watching(self) -> bool:
        """Tell whether answers are still looked at."""
        return bool(self.fingerprint) and self.watched < _WATCHED

    def note(self, seen: CacheUsage, record: Effectiveness) -> None:
        """Take what an answer tells."""
        self.watched += 1
        record.note_answer(seen)
        if not self._is_decided and seen.cached > self._explained:
            for entry in self.restored.values():
                if seen.cached >= _HIT * entry.tokens:
                    self._is_decided = True
                    record.hits += 1
                    break
            else:
                self._note_part(seen, record)
        self._explained = max(self._explained, seen.cached + seen.read + seen.written)

    def _note_part(self, seen: CacheUsage, record: Effectiveness) -> None:
        tokens = [entry.tokens for entry in self.restored.values()]
        if tokens and seen.cached >= _PART * min(tokens):
            self._is_decided = True
            record.parts += 1

    def look_back(self, old: Iterable[Saved], new: Iterable[Saved], record: Effectiveness) -> None:
        """Count a conversation that went on where it was restored and was read anew all the same.

        Args:
            old: Entries of before the run, and their tokens.
            new: What its slots held at its end, likewise.
            record: Where it is counted.
        """
        if self._is_decided or self.ended != self.watched:
            return
        files = {entry.file for entry in self.restored.values()}
        after = [tokens for _, tokens in new if tokens is not None]
        for entry, tokens in old:
            if entry.file in files and tokens is not None:
                shared = max((common_prefix(tokens, now) for now in after), default=0)
                if shared >= _CONTINUED * entry.tokens:
                    self._is_decided = True
                    record.failures += 1
                    return
