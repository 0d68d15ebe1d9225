"""The server's own cache in RAM, as far as it is known. Pure.

llama-server moves a conversation there when another one takes its slot, and back if a prompt has
more in common with it than with its slot. It says nothing about that cache, which may be full or
off, so whether it had a conversation is known from ``cache_n`` of the next request only.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from .chain import Chain, common_blocks
from .identity import may_begin_alike

_MOST = 64  # conversations that the server may have in RAM
_WRONG_GUESSES = 2  # without as many right ones, after which the cache is taken for off


class RamCache:
    """Conversations that another one has replaced in a slot of the server."""

    def __init__(self) -> None:
        self._known: deque[tuple[Chain, frozenset[int]]] = deque(maxlen=_MOST)
        self._hits = self._misses = 0

    def add(self, chain: Chain, openings: Iterable[int]) -> None:
        """Note that another conversation takes the slot of *chain*."""
        self._known = deque((each for each in self._known if each[0] != chain), maxlen=_MOST)
        if chain.hashes:
            self._known.append((chain, frozenset(openings)))

    def may_know(self, openings: Iterable[int]) -> bool:
        """Return True if one of its conversations may begin like a request with *openings*."""
        return any(may_begin_alike(known, openings) for _, known in self._known)

    def blocks(self, chain: Chain) -> int:
        """Return the number of blocks that *chain* has in common with a conversation in it."""
        if self._misses >= max(_WRONG_GUESSES, self._hits):
            return 0
        hashes = (known.hashes for known, _ in self._known)
        return max((common_blocks(known, chain.hashes) for known in hashes), default=0)

    def learn(self, chain: Chain, *, was_found: bool) -> None:
        """Note whether the server had *chain*, as was expected."""
        if was_found:
            self._hits += 1
            return
        self._misses += 1
        known = (each for each in self._known if not common_blocks(each[0].hashes, chain.hashes))
        self._known = deque(list(known), maxlen=_MOST)
