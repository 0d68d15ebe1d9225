"""Identity of requests: by what is known without their tokens, else by these.

To render and tokenize a prompt are two calls to a server that may be busy: with four busy clients
they made the median time to the first token 6 % longer, and the p99 50 % (SmolLM2 on two cores).
A turn that continues the conversation in a slot, and a conversation that begins like no other, need
neither; their tokens are read later, before the slot is saved.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from hashlib import blake2b
from typing import Any

from ..backend import KvBackend
from .chain import LISTS, PARTS, Chain, chain_of_text, chain_of_tokens, first_text
from .requests import SlotRequest

ANY_OPENING = 0
"""Opening of a conversation that may begin like any other."""

_OPENING_CHARACTERS = 64
_LONGEST_GROWTH = 4096  # bytes of a turn; the library may know more of a longer one


def openings_of(namespace: str, body: Mapping[str, Any]) -> frozenset[int]:
    """Return hashes of what a prompt may begin with: its first text, and its tools.

    Two prompts that have no opening in common have at most the few tokens in common that a template
    puts before each conversation.
    """
    texts = [first_text(body)]
    texts += [f"{name} {_first(body[name])!r}" for name in PARTS if body.get(name)]
    return frozenset(_hash(f"{namespace}\n{_shortened(text)}") for text in texts)


def may_begin_alike(one: Iterable[int], two: Iterable[int]) -> bool:
    """Return True if conversations with these openings may have a prefix in common."""
    both = frozenset(one), frozenset(two)
    return bool(both[0] & both[1]) or any(ANY_OPENING in openings for openings in both)


def continues(newer: SlotRequest, older: SlotRequest) -> bool:
    """Return True if *newer* is the next turn of *older*, or the same again, and not a long one."""
    if newer.path != older.path or not 0 <= newer.size - older.size <= _LONGEST_GROWTH:
        return False
    if any(newer.body.get(name) != older.body.get(name) for name in PARTS):
        return False
    return all(_begins(newer.body.get(name), older.body.get(name)) for name in LISTS)


def _begins(newer: object, older: object) -> bool:
    if isinstance(newer, list) and isinstance(older, list):
        return newer[: len(older)] == older
    if isinstance(newer, str) and isinstance(older, str):
        return newer.startswith(older)
    return newer is None and older is None


class Identity:
    """Renders and tokenizes prompts.

    Args:
        backend: Connection to the server.
    """

    def __init__(self, backend: KvBackend) -> None:
        self._backend = backend

    async def chain(self, request: SlotRequest, namespace: str) -> Chain:
        """Return the chain of the prompt of *request*: of its tokens, else of its JSON."""
        try:
            tokens = await self._backend.prompt_tokens(request.path, request.body)
        except OSError:
            tokens = None
        if tokens is None:
            return chain_of_text(namespace, request.body)
        return chain_of_tokens(namespace, tokens)


def _first(value: object) -> object:
    return value[0] if isinstance(value, list) else value


def _shortened(text: str) -> str:
    return " ".join(text[: 4 * _OPENING_CHARACTERS].split())[:_OPENING_CHARACTERS]


def _hash(text: str) -> int:
    digest = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little") or 1
