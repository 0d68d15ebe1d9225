"""Quota of a library. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from .conversation import Conversation


def over_quota(
    stored: Iterable[Conversation], max_bytes: int, max_age_s: float | None, now: float
) -> list[Conversation]:
    """Return the conversations to remove: useless ones, old ones, and the least recently used.

    Args:
        stored: All conversations.
        max_bytes: Limit of all files together.
        max_age_s: Limit of the time since the last use; seconds, None means unlimited.
        now: Wall clock; seconds since 1970.
    """
    gone, total = [], 0
    for one in sorted(stored, key=lambda one: -one.used_at):
        is_young = max_age_s is None or now - one.used_at <= max_age_s
        if is_young and not one.is_useless and total + one.size <= max_bytes:
            total += one.size
        else:
            gone.append(one)
    return gone
