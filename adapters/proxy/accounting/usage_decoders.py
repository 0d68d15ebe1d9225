"""Which parts of bodies are read, for msgspec; all else is checked to be JSON and passed over.

In a module of its own: msgspec makes these classes, and a compiled module makes its own.
"""

from __future__ import annotations

from typing import Any

import msgspec


class Telling(msgspec.Struct):
    """An answer, or an event of one: everything that may tell of tokens."""

    usage: Any = None
    timings: Any = None
    metrics: Any = None
    response: Any = None
    message: Any = None


class _Details(msgspec.Struct):
    cached_tokens: int | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    input_tokens_details: _Details | None = None
    prompt_tokens_details: _Details | None = None


class Plain(msgspec.Struct):
    """What most answers look like; all that counts is of the type it should be."""

    usage: _Usage | None = None
    timings: Any = None
    metrics: Any = None
    response: Any = None
    message: Any = None


TELLING = msgspec.json.Decoder(Telling)
TELLINGS = msgspec.json.Decoder(list[Telling])
PLAIN = msgspec.json.Decoder(Plain)
