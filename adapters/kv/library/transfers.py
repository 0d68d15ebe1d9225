"""Saves and restores of single slots of one process, between server and library."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import TypeAlias

import anyio

from ....dataclass import dataclass
from ....runtime.fence import Fence
from ...system import threads
from ..backend import KvBackend
from ..checkpoints.idle import IdleTime
from ..checkpoints.pace import Pace
from ..checkpoints.policy import is_due
from ..files import KvStoreError
from ..server import LaunchContext, Server
from ..slots import SlotError
from ..state import ModelState
from .chain import Chain
from .conversation import Conversation
from .identity import Identity
from .library import Library
from .table import SlotState

Counter: TypeAlias = Callable[[str, int], None]
Restored: TypeAlias = Callable[[int, float], None]
_LATEST_S = 1.0  # after a save its checksum is computed, also if requests are in flight
_ERRORS = (KvStoreError, SlotError, OSError, TimeoutError)


@dataclass(slots=True, eq=False)
class Transfer:
    """Saves and restores of one slot before a request.

    Attributes:
        slot: The slot.
        saves: Save what is in it first.
        erases: Empty it.
        refreshes: Render its prompt, so that it can be recognized after it was replaced.
        restored: Conversation to restore into it; None without one.
        has_restored: The conversation was restored.
        is_done: The transfer has ended, with or without success.
    """

    slot: SlotState
    saves: bool = False
    erases: bool = False
    refreshes: bool = False
    restored: Conversation | None = None
    has_restored: bool = False
    is_done: bool = False

    @property
    def is_empty(self) -> bool:
        """True if there is nothing to do."""
        return not (self.saves or self.erases or self.refreshes or self.restored is not None)


class SlotTransfers:
    """Saves and restores slots; failures are logged, counted and not raised.

    Args:
        state: State of the model's cache.
        library: Stored conversations of the model.
        launch: Launch context of the process.
        server: Identity of the process.
        backend: Connection to it.
        idle: Idle time of the process.
        pace: Limits of background saves.
        tasks: Task group for descriptions, which are written after a save.
        count: (name, number) -> None; adds to a counter of the model.
        note_restored: (tokens, ms) -> None; called after each restore.

    Attributes:
        identity: Renders and tokenizes prompts.
    """

    def __init__(
        self, state: ModelState, library: Library, launch: LaunchContext, server: Server,
        backend: KvBackend, idle: IdleTime, pace: Pace, tasks: Fence, count: Counter,
        note_restored: Restored,
    ) -> None:  # fmt: skip
        self._state, self._library, self._server, self._idle = state, library, server, idle
        self.identity, self._note_restored = Identity(backend), note_restored
        self._limit_s, self._saving = launch.settings.timeout_s, anyio.Lock()
        self._min_tokens = launch.settings.min_tokens
        self._backend, self._pace, self._tasks, self._count = backend, pace, tasks, count

    async def perform(self, transfer: Transfer) -> None:
        """Perform *transfer* within the time limit of saves and restores."""
        slot = transfer.slot
        if transfer.saves:
            await self.save(slot)
        try:
            with anyio.fail_after(self._limit_s):
                if transfer.refreshes:
                    await self.refresh(slot)
                if transfer.erases:
                    slot.clear()
                    await self._backend.erase(slot.number)
                if transfer.restored is not None:
                    with self._library.files.held(transfer.restored.file):
                        transfer.has_restored = await self._restore(slot, transfer.restored)
        except _ERRORS as error:
            self._warn(slot, error)
        finally:
            transfer.is_done = True

    async def save(self, slot: SlotState) -> float | None:
        """Save *slot* if it is due; return the stall of its server in ms, None without a save."""
        try:
            async with self._saving:
                if self.is_due(slot):  # a save that was under way may have been of this slot
                    with anyio.fail_after(self._limit_s):
                        return await self._save(slot)
        except _ERRORS as error:
            self._warn(slot, error)
        return None

    def _warn(self, slot: SlotState, error: Exception) -> None:
        self._state.count_failure()
        about = f"transfer {type(error).__name__}"
        text = f"slot {slot.number} was not saved or restored: {error or 'timed out'}"
        self._state.warn_once(about, f"{text}; what was saved before is kept")

    def size_of(self, slot: SlotState) -> int:
        """Return the expected size of the file of *slot*; bytes, 0 if unknown."""
        return self._state.record(self._server.key).expected_bytes(slot.tokens)

    def is_due(self, slot: SlotState) -> bool:
        """Return True if *slot* has grown enough to be saved."""
        if not (slot.chain.hashes or slot.is_stale):
            return False
        return is_due(
            slot.tokens, slot.unsaved, self._state.record(self._server.key),
            save_ms=self._pace.speed.expected_ms(self.size_of(slot)),
            budget_share=self._pace.budget.share(time.monotonic()), min_tokens=self._min_tokens,
        )  # fmt: skip

    async def refresh(self, slot: SlotState) -> bool:
        """Update the chain of *slot*; False if it has none, or a request has used it meanwhile."""
        request = slot.request
        if slot.is_stale and request is not None:
            chain = await self.identity.chain(request, slot.namespace)
            if slot.request is not request:
                return False
            slot.chain, slot.is_stale = chain, False
        return bool(slot.chain.hashes)

    async def _save(self, slot: SlotState) -> float | None:
        """Save *slot* as it is now; requests may use it while its description is written."""
        files, size = self._library.files, self.size_of(slot)
        if not self._pace.budget.allows(size, time.monotonic()):
            return None
        if not await self.refresh(slot):
            return None
        openings = tuple(slot.openings)
        chain, file, words, tokens = slot.chain, slot.file, slot.words, slot.tokens
        began = time.perf_counter()
        name = await self._reserve(size)
        is_good = False
        try:
            moved = await self._backend.save(slot.number, name)
            found = files.size(name)
            if found != moved.size:
                written = f"{max(found, 0)} of {moved.size} bytes were written"
                raise KvStoreError(f"{written}: is the disk full?")
            is_good = moved.tokens > 0 and abs(moved.tokens - tokens) <= max(tokens // 8, 4)
        finally:
            if not is_good:
                files.remove(name)
        if not is_good:  # a request that was not seen here has used the slot
            slot.clear()
            return None
        ms, now = (time.perf_counter() - began) * 1000, self._state.clock()
        self._state.record(self._server.key).note_save(moved.tokens, moved.size, ms)
        self._pace.note(moved.size, moved.stall_ms)
        self._count("saved_tokens_total", moved.tokens)
        self._count("saved_bytes_total", moved.size)
        one = Conversation(
            file=name, model=self._state.name, fingerprint=self._server.key, hashes=chain.hashes,
            tokens=moved.tokens, size=moved.size, sha256="", saved_at=now, used_at=now,
            save_ms=round(ms, 1), words=words, openings=openings,
        )  # fmt: skip
        known = self._library.get(file)
        if known is not None:
            one = replace(one, restores=known.restores, saved_ms=known.saved_ms)
        if slot.chain is chain:
            slot.file, slot.unsaved = name, 0
        self._library.begin(one)
        self._tasks.start_soon(self._library.complete, one, file, self._wait_idle)
        return moved.stall_ms

    async def _wait_idle(self) -> None:
        """Wait until a request that has met the save, or caused it, has ended; not for long.

        Its checksum takes a core from the server: 25 ms for 28 MB.
        """
        await self._idle.wait_idle(_LATEST_S)

    async def _reserve(self, size: int) -> str:
        files = self._library.files
        try:
            return await threads.run(files.reserve, size)
        except KvStoreError:
            if self._library.is_settled:
                raise
        await self._library.settled()  # what is on the disk can be removed from memory
        return await threads.run(files.reserve, size)

    async def _restore(self, slot: SlotState, one: Conversation) -> bool:
        library, began = self._library, time.perf_counter()
        slot.clear()
        flaw = await self._flaw(one)
        if flaw:
            self._state.warn_once(one.file, f"{one.tokens} saved tokens are lost: {flaw}")
            await library.forget(one.file)
            return False
        one = library.get(one.file) or one
        await library.update(replace(one, is_suspect=True))
        try:
            moved = await self._backend.restore(slot.number, one.file)
        except SlotError as error:
            self._state.warn_once("refused", f"{one.tokens} saved tokens were rejected: {error}")
            await library.forget(one.file)
            return False
        except OSError:
            raise  # the restore may have crashed the server: the file stays suspect
        except BaseException:
            with anyio.CancelScope(shield=True):
                await library.update(one)  # canceled
            raise
        if (moved.tokens, moved.size) != (one.tokens, one.size):
            await library.forget(one.file)
            await self._backend.erase(slot.number)
            return False
        ms = (time.perf_counter() - began) * 1000
        now = library.get(one.file) or one
        done = replace(now, restore_ms=round(ms, 1), is_suspect=False)
        self._tasks.start_soon(library.update, done)  # the request need not wait for the disk
        library.files.note_use(one.file)
        self._state.record(self._server.key).note_restore(one.size, ms)
        slot.chain, slot.tokens, slot.file = Chain(one.hashes, one.tokens), one.tokens, one.file
        slot.words, slot.openings = one.words, frozenset(one.openings)
        self._count("restores", 1)
        self._count("restored_tokens_total", one.tokens)
        self._note_restored(one.tokens, round(ms, 1))
        return True

    async def _flaw(self, one: Conversation) -> str:
        try:
            digest = await self._library.digests.of(one.file)
        except OSError as error:
            return error.strerror or str(error)
        size = self._library.files.size(one.file)
        if size != one.size:
            return f"expected {one.size} bytes, found {max(size, 0)}"
        return "" if one.sha256 in ("", digest) else "its checksum is wrong"
