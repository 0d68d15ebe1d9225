"""Whether restores pay: what was measured, what answers prove, and the verdict. Pure.

A restore that answers 200 proves nothing. What proves it is an answer whose ``cache_n`` is about
what was restored; what disproves it is a conversation that went on in the restored slot, token by
token, while no answer reused anything.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

Verdict: TypeAlias = Literal["unknown", "works", "partial", "no-op"]

_FAILURES = 2  # disproofs without a single hit before nothing is saved any more
_FEWEST_TOKENS = 32  # fewer say nothing about how fast prompts are read
_LARGEST = 1e15  # of anything measured: milliseconds, bytes, counts
_LONGEST = 32  # digits of a number, its exponent included
_NEW = 0.3  # weight of a new measurement


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheUsage:
    """What one answer tells of the cache.

    Attributes:
        cached: Prompt tokens that were reused.
        read: Prompt tokens that were evaluated.
        written: Tokens that were generated; 0 when it does not tell.
        read_ms: How long that took; None when it does not tell.
    """

    cached: int
    read: int
    written: int = 0
    read_ms: float | None = None


def _last(name: bytes, data: bytes) -> float | None:
    # A quotation mark within an answer's text is escaped, so no text can look like these.
    found = re.findall(rb'(?<!\\)"' + name + rb'"\s*:\s*([\d.eE+-]+)', data)
    try:
        value = float(found[-1]) if found and len(found[-1]) <= _LONGEST else -1.0
    except ValueError:
        return None
    return value if 0 <= value <= _LARGEST else None


def seen_in(ends: bytes) -> CacheUsage | None:
    """Read what an answer tells of the cache: llama.cpp's ``timings``, else ``usage``; or None.

    Args:
        ends: Its first and its last bytes, a few hundred at least; JSON or events.
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
        total += cached or 0  # Anthropic's leave the cached ones out
    if cached is None or total is None:
        return None
    return CacheUsage(cached=int(cached), read=max(int(total - cached), 0), written=int(written))


@dataclass(slots=True, kw_only=True)
class Effectiveness:
    """What was measured of one model under one fingerprint.

    Attributes:
        read_ms_per_token: Of prompts; None before the first answer that tells.
        bytes_per_token: Of files; None before the first save.
        save_ms: Of the quickest save, our checksum included; None before the first.
        save_ms_per_mb: What larger ones took beyond it.
        restore_ms: Of the quickest restore, our check included; None before the first.
        restore_ms_per_mb: What larger ones took beyond it.
        hits: Restored conversations that were reused, at least half of them.
        parts: Those of which less was, but a tenth at least.
        failures: Those that went on without being reused.
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
        """Make it from what a manifest holds; what is no sensible number is left out."""
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
        """Whether restores pay; ``unknown`` before there is evidence."""
        if self.hits and self.hits >= self.failures:
            return "works"
        if self.hits or self.parts:
            return "partial"
        return "no-op" if self.failures >= _FAILURES else "unknown"

    def note_answer(self, seen: CacheUsage) -> None:
        """Learn how fast prompts are read."""
        if seen.read_ms is not None and seen.read >= _FEWEST_TOKENS:
            self.read_ms_per_token = _mix(self.read_ms_per_token, seen.read_ms / seen.read)

    def note_save(self, tokens: int, size: int, ms: float) -> None:
        """Learn what a save costs."""
        self.bytes_per_token = _mix(self.bytes_per_token, size / tokens)
        self.save_ms = ms if self.save_ms is None else min(self.save_ms, ms)
        self.save_ms_per_mb = _mix(self.save_ms_per_mb, _slope(ms - self.save_ms, size))

    def note_restore(self, size: int, ms: float) -> None:
        """Learn what a restore costs."""
        self.restore_ms = ms if self.restore_ms is None else min(self.restore_ms, ms)
        self.restore_ms_per_mb = _mix(self.restore_ms_per_mb, _slope(ms - self.restore_ms, size))

    def expected_bytes(self, tokens: int) -> int:
        """Return how large a file of *tokens* will be; 0 when nobody knows."""
        return int((self.bytes_per_token or 0) * tokens)

    def cost_ms(self, tokens: int) -> float:
        """Return what saving and restoring *tokens* will take, as far as it is known."""
        megabytes = self.expected_bytes(tokens) / 1e6
        fixed = (self.save_ms or 0.0) + (self.restore_ms or 0.0)
        return fixed + megabytes * ((self.save_ms_per_mb or 0.0) + (self.restore_ms_per_mb or 0.0))

    def gain_ms(self, tokens: int) -> float | None:
        """Return how long reading *tokens* again would take; None when nobody knows."""
        return None if self.read_ms_per_token is None else self.read_ms_per_token * tokens

    def pays(self, tokens: int) -> bool:
        """Tell whether a save of *tokens* should be made; yes while too little is known."""
        gain = self.gain_ms(tokens)
        return gain is None or self.cost_ms(tokens) < gain


def _mix(old: float | None, new: float) -> float:
    return new if old is None else (1 - _NEW) * old + _NEW * new


def _slope(ms: float, size: int) -> float:
    return ms / max(size / 1e6, 1e-3)
