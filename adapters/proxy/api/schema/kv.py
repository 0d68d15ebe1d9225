"""Saved prompt caches of models."""

from __future__ import annotations

from typing import Literal, TypeAlias

from msgspec import UNSET

from .base import Body, Maybe, Part

KvMode: TypeAlias = Literal["off", "keep", "engine"]


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


class KvLimits(Part, kw_only=True):
    """Settings of `kv:` in force.

    Attributes:
        checkpoint: Slots are also saved while the server is idle.
        min_tokens: Smaller slots are not saved.
        max_bytes: Most that saved slots may take, in bytes; null means unlimited.
        max_age_s: Age in seconds at which conversations are removed; null means never.
        library_bytes: Size of the library in bytes; null means that there is none.
        write_budget: Most that checkpoints and the library write in an hour, in bytes.
    """

    checkpoint: bool
    min_tokens: int
    max_bytes: int | None
    max_age_s: float | None
    library_bytes: int | None
    write_budget: int


class SavedConversation(Part, kw_only=True):
    """A saved conversation.

    Attributes:
        id: Name of its file.
        kind: A conversation of the library, or a slot that was saved at a stop or a checkpoint.
        bytes: Size of the file.
        saved_at: Wall clock; seconds since 1970.
        used_at: Last use by a request, likewise; null for a slot.
        restores: Number of restores; null for a slot.
        saved_s: Prefill time in seconds that its restores have saved; null for a slot.
        misses: Number of times that it was of no use.
        verdict: Whether restores help the server that saved it.
        words: Beginning of its first text; absent unless asked for with ``words``.
    """

    id: str
    kind: Literal["library", "slot"]
    tokens: int
    bytes: int
    saved_at: float
    used_at: float | None
    restores: int | None
    saved_s: float | None
    misses: int
    verdict: str
    words: Maybe[str] = UNSET


class SavedCache(Body, kw_only=True):
    """Saved prompt cache of a model.

    Attributes:
        mode: `kv` of the configuration.
        facts: Sizes, times and counts of this run of the proxy; null if nothing is kept.
        directory: Directory of the files; null if there is none.
        memory_directory: Directory in memory in which the server saves; null without `tmpfs`.
        limits: Settings; null if nothing is kept.
        bytes: Size of all conversations.
        tokens: Tokens of all conversations.
        total: Number of conversations.
        conversations: Those that were used last, the latest first.
    """

    model: str
    mode: KvMode
    facts: KvFacts | None
    directory: str | None
    memory_directory: str | None
    limits: KvLimits | None
    bytes: int
    tokens: int
    total: int
    conversations: list[SavedConversation]


class Purged(Body, kw_only=True):
    """Number of conversations that were removed."""

    removed: int
