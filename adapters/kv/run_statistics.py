"""Evidence about restores from one run of a server. Pure.

Only reuse that nothing else explains is a proof, because a response may also reuse what an earlier
response of the same run has read. Only a run in which every response was evaluated can disprove
anything.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable

from ...dataclass import dataclass, field
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
        fingerprint: Key of the server's fingerprint; empty before it is known.
        restored: Slot number -> entry that was restored into it.
        is_proven: A response or a save has followed, so the restore did not crash the server.
        ended: Number of requests that ended since, evaluated or not.
        watched: Number of responses that were evaluated.
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
        """True while responses are evaluated."""
        return bool(self.fingerprint) and self.watched < _WATCHED

    def note(self, seen: CacheUsage, record: Effectiveness) -> None:
        """Evaluate the cache usage of a response."""
        self.watched += 1
        record.note_response(seen)
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
        """Count conversations that continued in a restored slot but were evaluated anew.

        Args:
            old: Entries from before the run, with their tokens.
            new: Contents of its slots at its end, with their tokens.
            record: Receives the counts.
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
