"""Overview of what is kept of each model: settings, sizes and conversations; and its removal.

Descriptions of conversations are read from the disk only until the model has been started, and
again only if their folder has changed. They are small; the files of slots are never read.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...system import threads
from ..files import KvStoreError
from ..library.conversation import Conversation
from ..library.store import ConversationStore
from ..manager import KvManager, Place
from .rows import SavedRow, last_used


class KvOverview:
    """Overview of the caches of all models.

    Args:
        manager: Manages them.
    """

    def __init__(self, manager: KvManager) -> None:
        self._manager = manager
        self._read: dict[Place, tuple[int, Sequence[Conversation]]] = {}

    async def describe(self, model: str, limit: int, *, shows_words: bool) -> dict[str, Any]:
        """Return settings, sizes and the *limit* conversations of *model* that were used last.

        Args:
            model: Id of the model.
            limit: Maximum number of conversations.
            shows_words: Return the first words of each conversation too, which are private.
        """
        wanted, cache = self._manager.wanted(model), self._manager.cache(model)
        facts = self._manager.facts(model)
        found: dict[str, Any] = {
            "facts": facts, "directory": None, "memory_directory": None, "settings": None,
            "bytes": 0, "tokens": 0, "total": 0, "conversations": [],
        }  # fmt: skip
        if wanted is not None:
            place, settings = wanted
            found["directory"] = str(place.disk or place.folder)
            found["memory_directory"] = None if place.disk is None else str(place.folder)
            found["settings"] = {
                "checkpoint": settings.has_checkpoints, "min_tokens": settings.min_tokens,
                "max_bytes": settings.max_bytes, "max_age_s": settings.max_age_s,
                "library_bytes": settings.library_bytes, "write_budget": settings.write_budget,
            }  # fmt: skip
        if wanted is None or cache is None:
            return found
        state = cache.state
        entries = list(state.store.manifest.entries)
        library: Sequence[Conversation] = ()
        if cache.library is not None:
            kept = cache.library.conversations()
            try:
                library = await self._stored(model, wanted[0]) if kept is None else kept
            except KvStoreError as error:
                found["facts"] = {**(facts or {}), "problem": str(error)}
        verdicts = state.verdicts()
        rows = await threads.run(
            lambda: last_used(entries, library, limit, lambda key: verdicts.get(key, "unknown"))
        )
        found["bytes"] = sum(e.size for e in entries) + sum(one.size for one in library)
        found["tokens"] = sum(e.tokens for e in entries) + sum(one.tokens for one in library)
        found["total"] = len(entries) + len(library)
        found["conversations"] = [_shown(row, shows_words=shows_words) for row in rows]
        return found

    async def _stored(self, model: str, place: Place) -> Sequence[Conversation]:
        """Return the conversations on the disk of a model that was not started yet."""
        folder = place.disk or place.folder
        store = ConversationStore(model, place.folder, place.disk)
        try:
            changed = folder.stat().st_mtime_ns
        except OSError:
            return ()
        known = self._read.get(place)
        if known is None or known[0] != changed:
            known = self._read[place] = changed, await threads.run(store.read)
        return known[1]

    async def purge(self, model: str) -> int | None:
        """Remove all that is kept of *model*; return the number of conversations.

        What a server has in its slots is kept again once it has grown, or when the server stops.
        None means that nothing is managed: caches of the model are off, or another proxy uses the
        folder.

        Raises:
            OSError: The disk is full or read-only.
        """
        cache = self._manager.cache(model)
        try:
            return None if cache is None else await cache.purge()
        except KvStoreError as error:
            raise OSError(str(error)) from error


def _shown(row: SavedRow, *, shows_words: bool) -> dict[str, Any]:
    found = {
        "id": row.file, "kind": "slot" if row.restores is None else "library",
        "tokens": row.tokens, "bytes": row.size, "saved_at": row.saved_at,
        "used_at": row.used_at, "restores": row.restores, "saved_s": row.saved_s,
        "misses": row.misses, "verdict": row.verdict,
    }  # fmt: skip
    return {**found, "words": row.words} if shows_words else found
