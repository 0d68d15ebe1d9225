"""Token usage and generation speed of a response. Pure.

Only the ends of a response are read: servers report totals at the end, Anthropic's API some of them
at the beginning. For any text the result is a number or unknown, never an error, and takes a few
milliseconds: at most 320 KiB are read, once.
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

from .usage_decoders import USAGE_FIELDS, USAGE_FIELDS_LIST, USUAL_RESPONSE, UsageFields

_DECODED_BYTES = 8 << 20
_WHOLE_BYTES = 1 << 18  # of JSON that is decoded completely, in up to 15 ms
_HEAD_BYTES, _TAIL_BYTES = 1 << 16, 1 << 18  # of a longer body
_OBJECT_BYTES = 1 << 12  # of one object in a text that is no complete JSON
_FIRST_OBJECTS, _LAST_OBJECTS = 8, 32  # of those objects that are read
_ERROR_BYTES = 1 << 16
_ERROR_CHARS = 500
_UNKNOWN = -1
_LARGEST = 10**15
_READER = json.JSONDecoder()
_OBJECT = re.compile(r'"(usage|timings|metrics)"\s*:\s*(?=\{)')


@dataclass(slots=True, init=False)
class TokenUsage:
    """Token usage of a response. All fields are 0 if nothing is known; otherwise -1 means unknown.

    Attributes:
        cached: Tokens of the prompt that were in the server's cache.
        drafted: Tokens that a draft model proposed.
        accepted: Proposed tokens that were accepted.
        prompt: Tokens of the prompt.
        completion: Generated tokens.
        read_rate: Prompt tokens per second.
        write_rate: Generated tokens per second.
        server_ms: Duration that the server reports, in milliseconds; 0 means unknown.
    """

    cached: int
    drafted: int
    accepted: int
    prompt: int
    completion: int
    read_rate: float
    write_rate: float
    server_ms: float

    def __init__(
        self, *, cached: int = 0, drafted: int = 0, accepted: int = 0, prompt: int = 0,
        completion: int = 0, read_rate: float = 0.0, write_rate: float = 0.0,
        server_ms: float = 0.0,
    ) -> None:  # fmt: skip
        # Spelled out: the one that dataclass makes is not compiled.
        self.cached, self.drafted, self.accepted = cached, drafted, accepted
        self.prompt, self.completion = prompt, completion
        self.read_rate, self.write_rate, self.server_ms = read_rate, write_rate, server_ms


def decoded(data: bytes, encoding: bytes) -> bytes | None:
    """Return *data* decoded; None if it is damaged, too large or of an unknown encoding."""
    kind = encoding.strip().lower()
    if kind in (b"", b"identity"):
        return data
    if kind not in (b"gzip", b"x-gzip", b"deflate"):
        return None
    for bits in (47, -15):  # gzip or zlib; the raw deflate that some servers send
        try:
            unpacker = zlib.decompressobj(wbits=bits)
            found = unpacker.decompress(data, _DECODED_BYTES)
        except zlib.error:
            continue
        return None if unpacker.unconsumed_tail else found
    return None


def tokens_of(body: bytes, *, is_events: bool, is_whole: bool) -> TokenUsage:
    """Return the token usage in *body*.

    Args:
        body: The body of the response, or its ends.
        is_events: The body is a stream of server-sent events.
        is_whole: The body is complete.
    """
    if len(body) > _WHOLE_BYTES:
        body, is_whole = b"%b\n%b" % (body[:_HEAD_BYTES], body[-_TAIL_BYTES:]), False
    if not _has_usage(body):
        return TokenUsage()
    if is_events:
        found = _from_events(body)
    elif is_whole:
        tokens = _usual_usage(body)
        if tokens is not None:
            return tokens
        found = _from_json(body)
    else:
        found = _from_fragments(body)
    return _counted(found)


def _has_usage(text: bytes) -> bool:
    # find() is faster than the operator `in` for bytes.
    return (
        text.find(b'"usage"') >= 0 or text.find(b'"timings"') >= 0 or text.find(b'"metrics"') >= 0
    )


def _usual_usage(body: bytes) -> TokenUsage | None:
    """Return the usage of a body with the usual fields alone; None if it has others."""
    try:
        found = USUAL_RESPONSE.decode(body)
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


def _from_events(body: bytes) -> list[UsageFields]:
    found = []
    for line in body.split(b"\n"):
        if line.startswith(b"data:") and _has_usage(line):
            found += _decode(line[5:])
    return found


def _from_json(body: bytes) -> list[UsageFields]:
    return _decode(body) or _from_fragments(body)


def _decode(text: bytes) -> list[UsageFields]:
    try:
        if text.lstrip()[:1] == b"[":
            return USAGE_FIELDS_LIST.decode(text)[-1:]
        return [USAGE_FIELDS.decode(text)]
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return []


def _from_fragments(body: bytes) -> list[UsageFields]:
    """Return the first and last few objects with usage in a text that is no complete JSON."""
    text = body.decode("utf-8", "replace")
    first: list[re.Match[str]] = []
    last: deque[re.Match[str]] = deque(maxlen=_LAST_OBJECTS)
    for match in _OBJECT.finditer(text):
        if len(first) < _FIRST_OBJECTS:
            first.append(match)
        else:
            last.append(match)
    found: list[UsageFields] = []
    end = 0
    for match in (*first, *last):
        if match.start() < end:  # inside the previous object
            continue
        try:
            given = text[match.end() : match.end() + _OBJECT_BYTES]
            value, length = _READER.raw_decode(given)
        except (ValueError, RecursionError):
            continue
        end = match.end() + length
        found.append(UsageFields(**{match[1]: value}))
    return found


# ---- counting
def _counted(found: Iterable[UsageFields]) -> TokenUsage:
    tokens = TokenUsage()
    is_known = False
    for fields in found:
        for usage in _usages(fields):
            is_known = _add_usage(tokens, usage, is_known) or is_known
        if isinstance(fields.timings, dict):
            is_known = _add_timings(tokens, fields.timings, is_known) or is_known
        if isinstance(fields.metrics, dict) and is_known:
            _add_metrics(tokens, fields.metrics)
    return tokens


def _usages(fields: UsageFields) -> list[Mapping[str, Any]]:
    found: list[Mapping[str, Any]] = [
        holder["usage"]
        for holder in (fields.response, fields.message)
        if isinstance(holder, dict) and isinstance(holder.get("usage"), dict)
    ]
    if isinstance(fields.usage, dict):
        found.append(fields.usage)
    return found


def _number(value: object) -> float | None:
    # Compared as an int, which may be too large for a float.
    if isinstance(value, int) and not isinstance(value, bool):
        return float(value) if -1 <= value < _LARGEST else None
    if isinstance(value, float):
        return value if -1 <= value < _LARGEST else None  # False for nan
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
    """Add the metrics that vLLM reports besides its usage."""
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
    """Return the rate per second; -1 if it is out of range."""
    rate = count * 1000 / ms
    return rate if 0 <= rate < _LARGEST else float(_UNKNOWN)


def error_of(status: int, body: bytes) -> str:
    """Return the error message in a response with a status other than 200; up to 500 characters."""
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
