"""Fake model: words are tokens, and replies and vectors depend on the input alone."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

_OPEN, _CLOSE = "<|im_start|>", "<|im_end|>"
_FILLER = (
    "and then the next model takes its place while this one rests until somebody asks again "
    "so every word you read here was counted timed and sent by a process that has no weights"
)

Json = dict[str, Any]


def text_of(content: object) -> str:
    """Return the text of a message's content: a text, or a list of typed parts."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    return " ".join(_part(part) for part in content)


def _part(part: object) -> str:
    if not isinstance(part, dict):
        return str(part)
    if "text" in part:
        return str(part["text"])
    digest = hashlib.sha256(repr(part).encode()).hexdigest()[:8]
    return f"<{part.get('type', 'part')}:{digest}>"


def chat_tokens(messages: Sequence[Json]) -> list[str]:
    """Return the tokens of a chat after its template, open for the assistant's turn."""
    tokens = []
    for message in messages:
        words = text_of(message.get("content")).split()
        tokens += [_OPEN, str(message.get("role", "user")), *words, _CLOSE]
    return [*tokens, _OPEN, "assistant"]


def last_user_text(messages: Sequence[Json]) -> str:
    """Return the text of the last message that a user wrote."""
    texts = (text_of(m.get("content")) for m in reversed(messages) if m.get("role") == "user")
    return next(texts, "")


def common_prefix(one: Sequence[str], other: Sequence[str]) -> int:
    """Return the length of the common prefix."""
    pairs = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False))
    return sum(1 for _ in pairs)


def reply(model: str, asked: str, *, result: str = "", is_endless: bool = False) -> Iterator[str]:
    """Yield the words of the reply: the model's name, a quotation, and filler if it is endless.

    Args:
        model: Name of the model.
        asked: Text of the user.
        result: Result of the last tool call, which is quoted in place of *asked*; may be empty.
        is_endless: Never end.
    """
    yield from f"This is {model}.".split()
    if words := result.split():
        yield from ["The", "tool", "returned:", *words[-24:]]
    elif words := asked.split():
        yield from ["You", "asked:", *words[-24:]]
    if is_endless:
        yield from itertools.cycle(_FILLER.split())


def embedding(text: str, dimensions: int) -> list[float]:
    """Return a vector of length 1; texts with common words point in similar directions."""
    sums = [0.0] * dimensions
    for word in text.lower().split() or [""]:
        bits = hashlib.shake_128(word.encode()).digest(dimensions)
        sums = [old + byte / 127.5 - 1.0 for old, byte in zip(sums, bits, strict=True)]
    norm = sum(x * x for x in sums) ** 0.5 or 1.0
    return [x / norm for x in sums]


def relevance(query: str, document: str) -> float:
    """Return the fraction of the query's words that the document has; 0..1."""
    asked, found = set(query.lower().split()), set(document.lower().split())
    return len(asked & found) / len(asked) if asked else 0.0


def token_id(token: str) -> int:
    """Return a stable number for *token*; 0..65535."""
    return int.from_bytes(hashlib.sha256(token.encode()).digest()[:2], "big")
