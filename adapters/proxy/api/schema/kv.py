"""Saved prompt caches of models."""

from __future__ import annotations

from msgspec import UNSET

from .base import Maybe, Part


class KvFacts(Part, kw_only=True):
    """Saved prompt caches of a model; without numbers before its first run.

    Attributes:
        problem: Why nothing is saved, and what to do; null if caches are saved.
        verdict: Whether restores help.
        last_save_ms: Duration of the last save in milliseconds; null before the first.
        last_restore_ms: Duration of the last restore in milliseconds; null before the first.
        conversations: Number of conversations in the library; absent without one.
        library_bytes: Size of the library in bytes.
        library_saved_s: Prefill time in seconds that its restores have saved.
    """

    problem: str | None
    verdict: Maybe[str] = UNSET
    saved_tokens: Maybe[int] = UNSET
    saved_bytes: Maybe[int] = UNSET
    last_save_ms: Maybe[float | None] = UNSET
    last_restore_ms: Maybe[float | None] = UNSET
    saves: Maybe[int] = UNSET
    checkpoints: Maybe[int] = UNSET
    restores: Maybe[int] = UNSET
    saved_tokens_total: Maybe[int] = UNSET
    saved_bytes_total: Maybe[int] = UNSET
    restored_tokens_total: Maybe[int] = UNSET
    reused_tokens_total: Maybe[int] = UNSET
    failures: Maybe[int] = UNSET
    conversations: Maybe[int] = UNSET
    library_bytes: Maybe[int] = UNSET
    library_saved_s: Maybe[float] = UNSET
