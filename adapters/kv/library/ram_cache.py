"""The server's own cache in RAM, as far as it is known. Pure."""

from __future__ import annotations

from collections import deque

from .chain import Chain, common_blocks

_MOST = 64  # conversations that the server may have in RAM


class RamCache:
    """Conversations that the server has moved from its slots into its cache in RAM.

    It says nothing about that cache, so whether a conversation is still there is known from
    ``cache_n`` of the next request only.
    """

    def __init__(self) -> None:
        self._chains: deque[Chain] = deque(maxlen=_MOST)

    def __len__(self) -> int:
        return len(self._chains)

    def add(self, chain: Chain) -> None:
        """Note that the server has put another conversation into the slot of *chain*."""
        if chain.hashes:
            self._chains.append(chain)

    def blocks(self, chain: Chain) -> int:
        """Return the number of blocks that *chain* has in common with a conversation in it."""
        return max((common_blocks(one.hashes, chain.hashes) for one in self._chains), default=0)

    def forget(self, chain: Chain) -> None:
        """Note that *chain* was not found."""
        known = (one for one in self._chains if not common_blocks(one.hashes, chain.hashes))
        self._chains = deque(list(known), maxlen=_MOST)
