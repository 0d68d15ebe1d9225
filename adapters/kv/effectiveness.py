"""Effectiveness of restores: measurements, evidence from responses, and the verdict. Pure.

A restore that returns 200 proves nothing. The proof is a response whose ``cache_n`` is about the
number of restored tokens. The disproof is a conversation that continued in the restored slot,
token by token, while no response reused anything.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

from ...dataclass import dataclass

Verdict: TypeAlias = Literal["unknown", "works", "partial", "no-op"]

_FAILURES = 2  # disproofs without a single hit after which nothing is saved any more
_FEWEST_TOKENS = 32  # fewer tokens do not show how fast prompts are read
_LARGEST = 1e15  # limit of each measurement: milliseconds, bytes, counts
_LONGEST = 32  # digits of a number, including its exponent
_NUMBER = re.compile(rb"\s*:\s*([\d.eE+-]+)")
_NEW = 0.3  # weight of a new measurement


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheUsage:
    """Cache usage that one response reports.

    Attributes:
        cached: Prompt tokens that were reused.
        read: Prompt tokens that were evaluated.
        written: Generated tokens; 0 if not reported.
        read_ms: Time to evaluate them; None if not reported.
    """

    cached: int
    read: int
    written: int = 0
    read_ms: float | None = None


def _last(name: bytes, data: bytes) -> float | None:
    # A quotation mark within generated text is escaped, so no text can look like a key.
    key, end = b'"%b"' % name, len(data)
    while (at := data.rfind(key, 0, end)) >= 0:
        found, end = _NUMBER.match(data, at + len(key)), at
        if found and data[at - 1 : at] != b"\\":
            return _number(found[1])
    return None


def _number(text: bytes) -> float | None:
    try:
        value = float(text) if len(text) <= _LONGEST else -1.0
    except ValueError:
        return None
    return value if 0 <= value <= _LARGEST else None


def cache_usage(ends: bytes) -> CacheUsage | None:
    """Return the cache usage from llama.cpp's ``timings``, else from ``usage``; None without both.

    Args:
        ends: First and last bytes of a response, a few hundred at least; JSON or events.
    """
    cached, read = _last(b"cache_n", ends), _last(b"prompt_n", ends)
    if cached is not None and read is not None:
        written = _last(b"predicted_n", ends) or 0
        return CacheUsage(
            cached=int(cached), read=int(read), written=int(written),
            read_ms=_last(b"prompt_ms", ends),
        )  # fmt: skip
    written = _last(b"completion_tokens", ends) or _last(b"output_tokens", ends) or 0
    total, cached = _last(b"prompt_tokens", ends), _last(b"cached_tokens", ends)
    if total is None:
        total = _last(b"input_tokens", ends)
    if cached is None and total is not None:
        cached = _last(b"cache_read_input_tokens", ends)
        total += cached or 0  # Anthropic's count leaves the cached ones out
    if cached is None or total is None:
        return None
    return CacheUsage(cached=int(cached), read=max(int(total - cached), 0), written=int(written))


@dataclass(slots=True, kw_only=True)
class Effectiveness:
    """Measurements of one model under one fingerprint.

    Attributes:
        read_ms_per_token: Time to evaluate a prompt token; None before the first measurement.
        bytes_per_token: Size of a saved token; None before the first save.
        save_ms: Time of the fastest save, including our checksum; None before the first.
        save_ms_per_mb: Additional time of larger saves.
        restore_ms: Time of the fastest restore, including our check; None before the first.
        restore_ms_per_mb: Additional time of larger restores.
        hits: Restored conversations of which at least half was reused.
        parts: Restored conversations of which at least a tenth was reused, but less than half.
        failures: Restored conversations that continued without being reused.
    """

    read_ms_per_token: float | None = None
    bytes_per_token: float | None = None
    save_ms: float | None = None
    save_ms_per_mb: float | None = None
    restore_ms: float | None = None
    restore_ms_per_mb: float | None = None
    hits: int = 0
    parts: int = 0
    failures: int = 0

    @staticmethod
    def load(value: Mapping[str, Any]) -> Effectiveness:
        """Return the measurements in a manifest; values out of range are left out."""
        record = Effectiveness()
        for name in Effectiveness.__slots__:
            found = value.get(name)
            if isinstance(found, bool) or not isinstance(found, (int, float)):
                continue
            if 0 <= found <= _LARGEST:
                setattr(record, name, found)
        return record

    @property
    def verdict(self) -> Verdict:
        """Verdict on the benefit of restores; ``unknown`` without evidence."""
        if self.hits and self.hits >= self.failures:
            return "works"
        if self.hits or self.parts:
            return "partial"
        return "no-op" if self.failures >= _FAILURES else "unknown"

    def note_response(self, seen: CacheUsage) -> None:
        """Record how fast prompts are read."""
        if seen.read_ms is not None and seen.read >= _FEWEST_TOKENS:
            self.read_ms_per_token = _mix(self.read_ms_per_token, seen.read_ms / seen.read)

    def note_save(self, tokens: int, size: int, ms: float) -> None:
        """Record the cost of a save."""
        self.bytes_per_token = _mix(self.bytes_per_token, size / tokens)
        self.save_ms = ms if self.save_ms is None else min(self.save_ms, ms)
        self.save_ms_per_mb = _mix(self.save_ms_per_mb, _slope(ms - self.save_ms, size))

    def note_restore(self, size: int, ms: float) -> None:
        """Record the cost of a restore."""
        self.restore_ms = ms if self.restore_ms is None else min(self.restore_ms, ms)
        self.restore_ms_per_mb = _mix(self.restore_ms_per_mb, _slope(ms - self.restore_ms, size))

    def expected_bytes(self, tokens: int) -> int:
        """Return the expected size of a file with *tokens*; bytes, 0 if unknown."""
        return int((self.bytes_per_token or 0) * tokens)

    def cost_ms(self, tokens: int) -> float:
        """Return the expected time to save and restore *tokens*; milliseconds."""
        megabytes = self.expected_bytes(tokens) / 1e6
        fixed = (self.save_ms or 0.0) + (self.restore_ms or 0.0)
        return fixed + megabytes * ((self.save_ms_per_mb or 0.0) + (self.restore_ms_per_mb or 0.0))

    def gain_ms(self, tokens: int) -> float | None:
        """Return the expected time to evaluate *tokens* again; milliseconds, None if unknown."""
        return None if self.read_ms_per_token is None else self.read_ms_per_token * tokens

    def pays(self, tokens: int) -> bool:
        """Return True if *tokens* should be saved, or if too little is known to decide."""
        gain = self.gain_ms(tokens)
        return gain is None or self.cost_ms(tokens) < gain


def _mix(old: float | None, new: float) -> float:
    return new if old is None else (1 - _NEW) * old + _NEW * new


def _slope(ms: float, size: int) -> float:
    return ms / max(size / 1e6, 1e-3)
