"""Library of one model: its stored conversations, in memory and on disk."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import replace

import anyio

from ....runtime.fence import Fence
from ...system import threads
from ..checksums import Checksums
from ..files import KvStoreError
from ..settings import KvSettings
from ..state import ModelState
from .chain import common_blocks
from .conversation import Conversation
from .index import Index
from .quota import over_quota
from .store import ConversationStore

log = logging.getLogger(__name__)

_PURGED = 100  # conversations that are removed at a time


class Library:
    """Stored conversations of one model.

    Args:
        state: State of the model's cache.
        store: Its files.
        settings: Settings in force.
        tasks: Task group for checksums.

    Attributes:
        files: Files of the saved slots.
        digests: Their checksums.
        settings: Settings in force.
    """

    def __init__(
        self, state: ModelState, store: ConversationStore, settings: KvSettings, tasks: Fence
    ) -> None:
        self._state, self._store = state, store
        self.files, self.settings = store.files, settings
        self.digests = Checksums(store.files, tasks)
        self._all: dict[str, Conversation] = {}
        self._index, self._fingerprint = Index(), ""
        self._is_open = False
        self._disk = anyio.Lock()  # descriptions are written and removed one after the other
        self._writing = 0
        self._written = anyio.Event()

    async def open(self, fingerprint: str) -> None:
        """Read the conversations, once, and offer those with *fingerprint*.

        Raises:
            KvStoreError: The folder cannot be read, or a newer program has written it.
        """
        if not self._is_open:
            found = await threads.run(self._store.open)
            self._all = {one.file: one for one in found}
            self._is_open = True
        await self.forget(*[one.file for one in self._all.values() if one.is_suspect])
        await self._enforce()
        if fingerprint != self._fingerprint:
            self._fingerprint, self._index = fingerprint, Index()
            for one in sorted(self._all.values(), key=lambda one: one.used_at):
                self._offer(one)

    def _offer(self, one: Conversation) -> None:
        if one.fingerprint == self._fingerprint and not (one.is_suspect or one.is_useless):
            self._index.put(one)
        else:
            self._index.remove(one.file)

    def __len__(self) -> int:
        return len(self._all)

    @property
    def size(self) -> int:
        """Size of all conversations; bytes."""
        return sum(one.size for one in self._all.values())

    @property
    def saved_s(self) -> float:
        """Prefill time that restores of these conversations have saved; seconds."""
        return sum(one.saved_ms for one in self._all.values()) / 1000

    def find(self, hashes: Sequence[int]) -> tuple[Conversation | None, int]:
        """Return the conversation with the longest common prefix, and its number of blocks."""
        return self._index.longest(hashes)

    def may_know(self, openings: Iterable[int]) -> bool:
        """Return True if a conversation may begin like a request with *openings*."""
        return self._index.may_know(openings)

    def get(self, file: str) -> Conversation | None:
        """Return the conversation in *file*, or None."""
        return self._all.get(file)

    def all(self) -> list[Conversation]:
        """Return all conversations, in no order."""
        return list(self._all.values())

    # ---- changes
    def begin(self, one: Conversation) -> None:
        """Offer a conversation that the server has written; `complete` must follow."""
        self._all[one.file] = one
        self._offer(one)
        self._writing += 1

    async def complete(
        self, one: Conversation, replaced: str, wait_idle: Callable[[], Awaitable[None]]
    ) -> None:
        """Compute the checksum of a conversation and write its description.

        Args:
            one: The conversation, without its checksum.
            replaced: File of an earlier state of it, or "".
            wait_idle: Waits until no request needs the processor.
        """
        try:
            await wait_idle()
            await self._describe(one)
            older = self._all.get(replaced)
            if older is not None and older.file != one.file and _contains(one, older):
                await self.forget(replaced)
            await self._enforce()
        except (KvStoreError, OSError) as error:
            self._state.count_failure()
            self._state.warn_once("library", f"a conversation is not kept: {error}")
            await self.forget(one.file)
        finally:
            self._writing -= 1
            self._written.set()

    async def _describe(self, one: Conversation) -> None:
        digest = await self.digests.of(one.file)
        await threads.run(self.files.persist, one.file)
        await threads.run(self.files.sync, one.file)
        if one.file in self._all:
            await self.update(replace(self._all[one.file], sha256=digest), is_durable=True)

    async def update(self, one: Conversation, *, is_durable: bool = False) -> None:
        """Replace what is known about a conversation; a no-op if it was removed meanwhile.

        Raises:
            KvStoreError: The disk is full or read-only.
        """
        if one.file not in self._all:
            return
        self._all[one.file] = one
        self._offer(one)
        if not one.sha256:  # `complete` writes it
            return
        async with self._disk:
            latest = self._all.get(one.file)
            if latest is not None:
                await threads.run(lambda: self._store.write(latest, is_durable=is_durable))

    async def forget(self, *files: str) -> None:
        """Remove the conversations in *files*."""
        for file in files:
            self._all.pop(file, None)
            self._index.remove(file)
            self.digests.forget(file)
        if files:
            async with self._disk:
                await threads.run(self._store.remove, files)

    async def purge(self) -> int:
        """Remove all conversations that are there now; return their number."""
        files = list(self._all)
        for start in range(0, len(files), _PURGED):  # requests are served between two pieces
            await self.forget(*files[start : start + _PURGED])
        return len(files)

    async def _enforce(self) -> None:
        settings, now = self.settings, self._state.clock()
        limit = settings.library_bytes or 0
        gone = over_quota(self._all.values(), limit, settings.max_age_s, now)
        await self.forget(*(one.file for one in gone))

    @property
    def is_settled(self) -> bool:
        """True if all descriptions are written."""
        return not self._writing

    async def settled(self) -> None:
        """Wait until all descriptions are written."""
        while self._writing:
            self._written = anyio.Event()
            await self._written.wait()


def _contains(newer: Conversation, older: Conversation) -> bool:
    """Return True if *newer* continues *older*; the last block may differ."""
    return common_blocks(newer.hashes, older.hashes) >= len(older.hashes) - 1
