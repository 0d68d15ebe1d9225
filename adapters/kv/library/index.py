"""Index of stored conversations by the hashes of their prefix. Pure.

Each hash of each conversation is a key, so the longest common prefix is found by bisection over the
hashes of a request: about ten look-ups for 100,000 tokens, however many conversations are stored.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

from .conversation import Conversation
from .identity import ANY_OPENING

_COMPARED = 64  # conversations with the same longest prefix, of which the last used one is taken


class Index:
    """Index of stored conversations."""

    def __init__(self) -> None:
        self._by_file: dict[str, Conversation] = {}
        # Hash -> the file with it, or all of them: most hashes have one.
        self._by_hash: dict[int, str | dict[str, None]] = {}
        self._openings = Counter[int]()

    def __len__(self) -> int:
        return len(self._by_file)

    def __iter__(self) -> Iterator[Conversation]:
        return iter(list(self._by_file.values()))

    def get(self, file: str) -> Conversation | None:
        """Return the conversation in *file*, or None."""
        return self._by_file.get(file)

    def put(self, conversation: Conversation) -> None:
        """Add *conversation*, or replace the one in the same file, whose hashes are the same."""
        file = conversation.file
        is_new = file not in self._by_file
        self._by_file[file] = conversation
        if is_new:
            self._openings.update(conversation.openings)
        for key in conversation.hashes if is_new else ():
            known = self._by_hash.get(key)
            if known is None:
                self._by_hash[key] = file
            elif isinstance(known, str):
                self._by_hash[key] = {known: None, file: None}
            else:
                known[file] = None

    def remove(self, file: str) -> None:
        """Remove the conversation in *file*; a no-op if there is none."""
        gone = self._by_file.pop(file, None)
        for opening in () if gone is None else gone.openings:
            self._openings[opening] -= 1
            if not self._openings[opening]:
                del self._openings[opening]
        for key in () if gone is None else gone.hashes:
            known = self._by_hash.get(key)
            if isinstance(known, dict):
                known.pop(file, None)
                if not known:
                    del self._by_hash[key]
            elif known == file:
                del self._by_hash[key]

    def may_know(self, openings: Iterable[int]) -> bool:
        """Return True if a stored conversation may begin like a request with *openings*."""
        known = self._openings
        return ANY_OPENING in known or any(opening in known for opening in openings)

    def longest(self, hashes: Sequence[int]) -> tuple[Conversation | None, int]:
        """Return the conversation with the longest common prefix, and its number of blocks.

        Among several the one that was used last is returned.
        """
        low, high = 0, len(hashes)
        while low < high:
            middle = (low + high + 1) // 2
            if hashes[middle - 1] in self._by_hash:
                low = middle
            else:
                high = middle - 1
        if not low:
            return None, 0
        known = self._by_hash[hashes[low - 1]]
        files = (known,) if isinstance(known, str) else islice(reversed(known), _COMPARED)
        return max((self._by_file[file] for file in files), key=lambda one: one.used_at), low
