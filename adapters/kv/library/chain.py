"""Identity of a conversation: a chain of hashes, one for each block of its prompt. Pure.

The hash of a block covers all blocks before it, so two conversations have equal hashes up to the
block in which they differ, and the length of their common prefix is found by bisection. A hash only
proposes a conversation: the server compares the tokens themselves before it reuses any, so that two
conversations with equal hashes cost a restore and never a wrong response.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from hashlib import blake2b
from typing import Any

from ....dataclass import dataclass

BLOCK_TOKENS = 64
"""Tokens of a block; the hashes do not tell conversations apart that differ later."""

_BLOCK_BYTES = 256  # of a text whose tokens are unknown: four bytes are about one token
_HASH_BYTES = 8

#: Parts of a request that a template renders before or after its messages, in their order.
PARTS = ("tools", "system", "instructions", "chat_template_kwargs")
LISTS = ("messages", "input", "prompt")
"""Parts that grow with each turn."""


@dataclass(frozen=True, slots=True)
class Chain:
    """Identity of a prompt.

    Attributes:
        hashes: Hash of each complete block; shape (blocks,), 64 bits.
        tokens: Tokens of the prompt; estimated if it is known as text only.
    """

    hashes: Sequence[int] = ()
    tokens: int = 0


NO_CHAIN = Chain()


def chain_of_tokens(namespace: str, tokens: Sequence[int]) -> Chain:
    """Return the chain of a prompt whose *tokens* are known.

    Args:
        namespace: Chains of different namespaces have no hash in common.
        tokens: Tokens of the prompt.
    """
    data = array("q", tokens).tobytes()
    return Chain(_hashes(f"tokens {namespace}", data, BLOCK_TOKENS * 8), len(tokens))


def chain_of_text(namespace: str, body: Mapping[str, Any]) -> Chain:
    """Return the chain of a request *body* that the server cannot render: of the JSON of its parts.

    A request that continues a conversation has the JSON of the earlier one as its prefix.
    """
    pieces = [_json(body[name]) for name in PARTS if body.get(name)]
    for name in LISTS:
        value = body.get(name)
        pieces += map(_json, value) if isinstance(value, list) else [_json(value)] if value else []
    data = "\n".join(pieces).encode("utf-8", "surrogatepass")
    return Chain(_hashes(f"text {namespace}", data, _BLOCK_BYTES), len(data) // 4)


def common_blocks(one: Sequence[int], two: Sequence[int]) -> int:
    """Return the number of blocks that two chains have in common."""
    low, high = 0, min(len(one), len(two))
    while low < high:
        middle = (low + high + 1) // 2
        if one[middle - 1] == two[middle - 1]:
            low = middle
        else:
            high = middle - 1
    return low


def _hashes(seed: str, data: bytes, block: int) -> array[int]:
    found, last = array("Q"), blake2b(seed.encode(), digest_size=_HASH_BYTES).digest()
    for start in range(0, len(data) - block + 1, block):
        last = blake2b(last + data[start : start + block], digest_size=_HASH_BYTES).digest()
        found.append(int.from_bytes(last, "little"))
    return found


def _json(value: object) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def first_words(body: Mapping[str, Any], limit: int = 80) -> str:
    """Return the beginning of the first text of a user; at most *limit* characters."""
    text = next(_texts(body, {"user"}), "")
    return " ".join(text[: 4 * limit].split())[:limit]


def first_text(body: Mapping[str, Any]) -> str:
    """Return the first text of a request, of any role; empty without one."""
    return next(_texts(body, None), "")


def _texts(body: Mapping[str, Any], roles: Container[str] | None) -> Iterator[str]:
    for name in LISTS:
        value = body.get(name)
        if isinstance(value, str) and value:
            yield value
        if isinstance(value, list):
            yield from _message_texts(value, roles)


def _message_texts(messages: Iterable[object], roles: Container[str] | None) -> Iterator[str]:
    for message in messages:
        if not isinstance(message, dict):
            continue
        if roles is not None and message.get("role", "user") not in roles:
            continue
        content = message.get("content")
        if isinstance(content, str):
            yield content
        for part in content if isinstance(content, list) else ():
            if isinstance(part, dict) and isinstance(part.get("text"), str):
                yield part["text"]
