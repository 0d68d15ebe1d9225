"""Reads from an answer how many tokens it cost and how fast they came. Pure.

Only the ends of an answer are looked at: servers tell totals at the end, Anthropic's part of them
at the beginning. Whatever the text holds, the outcome is a number or unknown, never an error, and
is there after some milliseconds: no more than 320 KiB are looked at, and those once.
"""

from __future__ import annotations

import json
import re
import zlib
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import msgspec

from .usage_decoders import PLAIN, TELLING, TELLINGS, Telling

_DECODED_BYTES = 8 << 20
_WHOLE_BYTES = 1 << 18  # of JSON that is read as a whole: 15 ms at worst
_HEAD_BYTES, _TAIL_BYTES = 1 << 16, 1 << 18  # of what is longer
_OBJECT_BYTES = 1 << 12  # of one object in a text that is no JSON as a whole
_FIRST_OBJECTS, _LAST_OBJECTS = 8, 32  # of those that are read there
_ERROR_BYTES = 1 << 16
_ERROR_CHARS = 500
_UNKNOWN = -1
_LARGEST = 10**15
_READER = json.JSONDecoder()
_OBJECT = re.compile(r'"(usage|timings|metrics)"\s*:\s*(?=\{)')


@dataclass(slots=True, kw_only=True)
class TokenUsage:
    """What an answer cost. Where anything is known, -1 is what is not; else all is 0.

    Attributes:
        cached: Tokens of the prompt that were not read anew.
        drafted: Tokens that a draft model proposed.
        accepted: Those of them that were taken.
        prompt: Tokens of the prompt.
        completion: Tokens of the answer.
        read_rate: Prompt tokens a second.
        write_rate: Answer tokens a second.
        server_ms: What the server says it took; 0 is unknown.
    """

    cached: int = 0
    drafted: int = 0
    accepted: int = 0
    prompt: int = 0
    completion: int = 0
    read_rate: float = 0.0
    write_rate: float = 0.0
    server_ms: float = 0.0


def decoded(data: bytes, encoding: bytes) -> bytes | None:
    """Return *data* without its Content-Encoding; None: unknown, damaged, or too much of it."""
    kind = encoding.strip().lower()
    if kind in (b"", b"identity"):
        return data
    if kind not in (b"gzip", b"x-gzip", b"deflate"):
        return None
    for bits in (47, -15):  # gzip or zlib by its head; what servers wrongly call deflate
        try:
            unpacker = zlib.decompressobj(wbits=bits)
            found = unpacker.decompress(data, _DECODED_BYTES)
        except zlib.error:
            continue
        return None if unpacker.unconsumed_tail else found
    return None


def tokens_of(body: bytes, *, is_events: bool, is_whole: bool) -> TokenUsage:
    """Return what *body* tells.

    Args:
        body: The answer, or its ends.
        is_events: It is a stream of events.
        is_whole: It is not the ends only.
    """
    if len(body) > _WHOLE_BYTES:
        body, is_whole = b"%b\n%b" % (body[:_HEAD_BYTES], body[-_TAIL_BYTES:]), False
    if not _tells(body):
        return TokenUsage()
    if is_events:
        found = _from_events(body)
    elif is_whole:
        tokens = _plain(body)
        if tokens is not None:
            return tokens
        found = _from_json(body)
    else:
        found = _from_pieces(body)
    return _counted(found)


def _tells(text: bytes) -> bool:
    # To find is quicker than to ask whether it is in there.
    return (
        text.find(b'"usage"') >= 0 or text.find(b'"timings"') >= 0 or text.find(b'"metrics"') >= 0
    )


def _plain(body: bytes) -> TokenUsage | None:
    """Return what a body with nothing but a usage tells; None: look closer."""
    try:
        found = PLAIN.decode(body)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return None
    usage = found.usage
    if usage is None or not (
        found.timings is None and found.metrics is None
        and found.response is None and found.message is None
    ):  # fmt: skip
        return None
    read = usage.input_tokens if usage.prompt_tokens is None else usage.prompt_tokens
    written = usage.output_tokens if usage.completion_tokens is None else usage.completion_tokens
    cached = usage.cache_read_input_tokens
    for details in (usage.input_tokens_details, usage.prompt_tokens_details):
        if cached is None and details is not None:
            cached = details.cached_tokens
    if read is None or written is None:
        return None
    cached = _UNKNOWN if cached is None else cached
    if not (0 <= read < _LARGEST and 0 <= written < _LARGEST and -1 <= cached < _LARGEST):
        return None
    return TokenUsage(
        cached=cached, drafted=_UNKNOWN, accepted=_UNKNOWN, prompt=read, completion=written,
        read_rate=-1.0, write_rate=-1.0,
    )  # fmt: skip


def _from_events(body: bytes) -> list[Telling]:
    found = []
    for line in body.split(b"\n"):
        if line.startswith(b"data:") and _tells(line):
            found += _decode(line[5:])
    return found


def _from_json(body: bytes) -> list[Telling]:
    return _decode(body) or _from_pieces(body)


def _decode(text: bytes) -> list[Telling]:
    try:
        if text.lstrip()[:1] == b"[":
            return TELLINGS.decode(text)[-1:]
        return [TELLING.decode(text)]
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return []


def _from_pieces(body: bytes) -> list[Telling]:
    """Find the objects in a text that is no JSON as a whole: the first and the last few."""
    text = body.decode("utf-8", "replace")
    first: list[re.Match[str]] = []
    last: deque[re.Match[str]] = deque(maxlen=_LAST_OBJECTS)
    for match in _OBJECT.finditer(text):
        if len(first) < _FIRST_OBJECTS:
            first.append(match)
        else:
            last.append(match)
    found: list[Telling] = []
    end = 0
    for match in (*first, *last):
        if match.start() < end:  # within the one before
            continue
        try:
            given = text[match.end() : match.end() + _OBJECT_BYTES]
            value, length = _READER.raw_decode(given)
        except (ValueError, RecursionError):
            continue
        end = match.end() + length
        found.append(Telling(**{match[1]: value}))
    return found


# ---- counting
def _counted(found: Iterable[Telling]) -> TokenUsage:
    tokens = TokenUsage()
    is_known = False
    for telling in found:
        for usage in _usages(telling):
            is_known = _add_usage(tokens, usage, is_known) or is_known
        if isinstance(telling.timings, dict):
            is_known = _add_timings(tokens, telling.timings, is_known) or is_known
        if isinstance(telling.metrics, dict) and is_known:
            _add_metrics(tokens, telling.metrics)
    return tokens


def _usages(telling: Telling) -> list[Mapping[str, Any]]:
    found: list[Mapping[str, Any]] = [
        holder["usage"]
        for holder in (telling.response, telling.message)
        if isinstance(holder, dict) and isinstance(holder.get("usage"), dict)
    ]
    if isinstance(telling.usage, dict):
        found.append(telling.usage)
    return found


def _number(value: object) -> float | None:
    # An int is compared as such: to a float it may be too large, as what is compiled finds out.
    if isinstance(value, int) and not isinstance(value, bool):
        return float(value) if -1 <= value < _LARGEST else None
    if isinstance(value, float):
        return value if -1 <= value < _LARGEST else None  # nan is refused too
    return None


def _first(values: Mapping[str, Any], *names: str) -> float | None:
    for name in names:
        value = values.get(name)
        if value is not None and (found := _number(value)) is not None:
            return found
    return None


def _begin(tokens: TokenUsage) -> None:
    tokens.cached = tokens.drafted = tokens.accepted = _UNKNOWN
    tokens.read_rate = tokens.write_rate = float(_UNKNOWN)


def _add_usage(tokens: TokenUsage, usage: Mapping[str, Any], is_known: bool) -> bool:
    read = _first(usage, "prompt_tokens", "input_tokens")
    written = _first(usage, "completion_tokens", "output_tokens")
    if read is None and written is None:
        return False
    if not is_known:
        _begin(tokens)
    if read is not None and read > 0:
        tokens.prompt = int(read)
    if written is not None and written > 0:
        tokens.completion = int(written)
    cached = _first(usage, "cache_read_input_tokens")
    for name in ("input_tokens_details", "prompt_tokens_details"):
        details = usage.get(name)
        if cached is None and isinstance(details, dict):
            cached = _first(details, "cached_tokens")
    if cached is not None:
        tokens.cached = int(cached)
    return True


def _add_timings(tokens: TokenUsage, timings: Mapping[str, Any], is_known: bool) -> bool:
    read, written = _first(timings, "prompt_n"), _first(timings, "predicted_n")
    if read is None and written is None:
        return False
    if not is_known:
        _begin(tokens)
    tokens.prompt = int(read or 0)
    tokens.completion = int(written or 0)
    for name, attribute in (
        ("prompt_per_second", "read_rate"), ("predicted_per_second", "write_rate"),
    ):  # fmt: skip
        rate = _first(timings, name)
        if rate is not None:
            setattr(tokens, attribute, float(rate))
    cached = _first(timings, "cache_n")
    if cached is not None:
        tokens.cached = int(cached)
    drafted, accepted = _first(timings, "draft_n"), _first(timings, "draft_n_accepted")
    if drafted is not None and accepted is not None:
        tokens.drafted, tokens.accepted = int(drafted), int(accepted)
    tokens.server_ms = (_first(timings, "prompt_ms") or 0) + (_first(timings, "predicted_ms") or 0)
    return True


def _add_metrics(tokens: TokenUsage, metrics: Mapping[str, Any]) -> None:
    """Add what vLLM tells beside its usage."""
    decoding = metrics.get("speculative_decoding")
    if isinstance(decoding, dict):
        drafted = _first(decoding, "num_draft_tokens")
        accepted = _first(decoding, "num_accepted_draft_tokens")
        if drafted is not None and accepted is not None:
            tokens.drafted, tokens.accepted = int(drafted), int(accepted)
    first_ms = _first(metrics, "time_to_first_token_ms")
    if first_ms is not None and first_ms > 0:
        tokens.read_rate = _rate(tokens.prompt - max(tokens.cached, 0), first_ms)
    gap_ms = _first(metrics, "mean_itl_ms")
    if gap_ms is not None and gap_ms > 0:
        tokens.write_rate = _rate(1, gap_ms)


def _rate(count: int, ms: float) -> float:
    """Return how many come in a second; -1 where that makes no sense."""
    rate = count * 1000 / ms
    return rate if 0 <= rate < _LARGEST else float(_UNKNOWN)


def error_of(status: int, body: bytes) -> str:
    """Say what an answer other than 200 says is wrong; at most 500 characters."""
    try:
        value = json.loads(body) if len(body) <= _ERROR_BYTES else None
    except (ValueError, RecursionError):
        value = None
    if isinstance(value, dict):
        error = value.get("error")
        if isinstance(error, dict):
            error = error.get("message")
        for found in (error, value.get("message"), value.get("detail")):
            if isinstance(found, str) and found:
                return found[:_ERROR_CHARS]
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)
