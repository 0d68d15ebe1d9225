"""msgspec decoders of the fields of a response that hold token usage; others are skipped.

A module of their own, since a compiled module cannot hold classes that msgspec makes.
"""

from __future__ import annotations

from typing import Any

import msgspec


class UsageFields(msgspec.Struct):
    """A response, or one event of it: all fields that may hold token usage."""

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


class UsualResponse(msgspec.Struct):
    """A response in the usual form, with fields of the expected types."""

    usage: _Usage | None = None
    timings: Any = None
    metrics: Any = None
    response: Any = None
    message: Any = None


USAGE_FIELDS = msgspec.json.Decoder(UsageFields)
USAGE_FIELDS_LIST = msgspec.json.Decoder(list[UsageFields])
USUAL_RESPONSE = msgspec.json.Decoder(UsualResponse)
