"""Director of the slots of one process: which request goes where, and what is saved and restored.

It sends ``id_slot`` with each request, so it knows the contents of each slot. A request that the
server places itself makes that unsure, and then the server's list of slots is read before the next
request.
A transfer of a slot is completed even if its request is canceled meanwhile.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Sequence

import anyio

from ....runtime.fence import Fence
from ..backend import KvBackend
from ..checkpoints.idle import IdleTime
from ..checkpoints.pace import Pace
from ..effectiveness import CacheUsage
from ..server import LaunchContext, Server
from ..slots import SlotError
from ..state import ModelState
from .assignment import Assignment, Outcome
from .chain import BLOCK_TOKENS, NO_CHAIN, first_words
from .conversation import Conversation
from .identity import may_begin_alike, openings_of
from .library import Library
from .ram_cache import RamCache
from .requests import runs_in_slots, slot_request, with_slot
from .table import Choice, SlotState, choose_at_once, choose_slot, tokens_of_blocks
from .transfers import Counter, Restored, SlotTransfers, Transfer

log = logging.getLogger(__name__)

_PLACED = 64  # requests that the server has placed
_FEWEST_TOKENS = 64  # of the cache that a source is named for


class Director:
    """Director of the slots of one process.

    Args:
        state: State of the model's cache.
        library: Stored conversations of the model.
        launch: Launch context of the process.
        server: Identity of the process.
        backend: Connection to it; `close` closes it.
        is_idle: Returns True if no request is in flight or queued for the model.
        pace: Limits of background saves.
        tasks: Task group for work that continues after a request.
        count: (name, number) -> None; adds to a counter of the model.
        note_restored: (tokens, ms) -> None; called after each restore.
    """

    def __init__(
        self, state: ModelState, library: Library, launch: LaunchContext, server: Server,
        backend: KvBackend, is_idle: Callable[[], bool], pace: Pace, tasks: Fence, count: Counter,
        note_restored: Restored,
    ) -> None:  # fmt: skip
        self._state, self._library, self._launch, self._server = state, library, launch, server
        self._backend, self._pace, self._tasks, self._count = backend, pace, tasks, count
        self._idle = IdleTime(is_idle)
        self.slots = [SlotState(number=number) for number in range(server.slots)]
        self._transfers = SlotTransfers(
            state, library, launch, server, backend, self._idle, pace, tasks, count, note_restored
        )  # fmt: skip
        self._abandoned: set[int] = set()
        self._uses = 0
        self._freed = anyio.Event()
        self._is_unsure = False
        self._is_over = False
        self._placed: deque[tuple[Assignment, int]] = deque(maxlen=_PLACED)
        self._in_ram = RamCache()

    # ---- requests
    async def assign(self, path: str, body: bytes | None, namespace: str) -> Assignment | None:
        """Return the slot of a request, saved and restored as needed; None leaves it unchanged.

        Args:
            path: Path of the request at the server.
            body: Its body; None if it is not complete.
            namespace: Namespace of its API key.
        """
        request = None if body is None else slot_request(path, body)
        if request is None or body is None or self._is_over or self._is_useless:
            self._is_unsure = self._is_unsure or runs_in_slots(path)
            return None
        own = None if request.own_slot is None else request.own_slot % len(self.slots)
        found = Assignment(
            body=body, request=request, chain=None if request.uses_cache else NO_CHAIN,
            openings=openings_of(namespace, request.body), namespace=namespace,
            words=first_words(request.body), on_end=self._on_end, is_cached=request.uses_cache,
        )  # fmt: skip
        if self._is_unsure:
            await self._look()
        choice, stored = await self._choose(found, own)
        if choice is None:
            return found  # the server places it
        slot = found.slot = choice.slot
        slot.is_busy = True
        self._uses += 1
        slot.used = self._uses
        found.blocks, found.continues = choice.blocks, choice.continues
        await self._prepare(found, choice, stored)
        found.is_placed = request.can_choose
        if request.can_choose and own is None:
            found.body = with_slot(body, slot.number)
        return found

    async def _choose(
        self, found: Assignment, own: int | None
    ) -> tuple[Choice | None, Conversation | None]:
        """Return the slot of a request, and the stored conversation that is like it.

        It does not wait after it has chosen, so the slot is idle. Its choice is None if the server
        has more of the conversation in its cache in RAM.
        """
        while True:
            while not (idle := self._idle_slots(own)):
                freed = self._freed
                await freed.wait()
            if found.chain is not None:
                break
            choice = self._choose_at_once(found, idle)
            if choice is not None:
                return choice, None
            for slot in idle:
                if slot.is_stale and may_begin_alike(slot.openings, found.openings):
                    await self._transfers.refresh(slot)
            found.chain = await self._transfers.identity.chain(found.request, found.namespace)
        hashes = found.chain.hashes
        stored, blocks = self._library.find(hashes)
        chosen = choose_slot(idle, hashes, blocks)
        in_ram = 0 if own is not None else self._in_ram.blocks(found.chain)
        if in_ram > max(chosen.blocks, blocks):
            found.blocks = in_ram
            return None, None
        return chosen, stored

    def _choose_at_once(self, found: Assignment, idle: Sequence[SlotState]) -> Choice | None:
        if not found.request.can_choose or self._placed:
            return None
        choice = choose_at_once(idle, found.request, found.namespace, found.openings)
        if choice is None or choice.continues:
            return choice
        is_known = any(known.may_know(found.openings) for known in (self._library, self._in_ram))
        return None if is_known else choice

    @property
    def _is_useless(self) -> bool:
        return self._state.record(self._server.key).verdict == "no-op"

    def _idle_slots(self, own: int | None) -> list[SlotState]:
        slots = self.slots if own is None else [self.slots[own]]
        return [slot for slot in slots if not slot.is_busy]

    # ---- transfers
    async def _prepare(
        self, found: Assignment, choice: Choice, stored: Conversation | None
    ) -> None:
        slot = choice.slot
        is_foreign = bool(slot.tokens) and slot.namespace != found.namespace
        is_due = not choice.continues and self._transfers.is_due(slot)
        is_replaced = not (choice.continues or choice.restores or is_foreign)
        transfer = Transfer(
            slot, saves=is_due, erases=is_foreign and not choice.restores,
            refreshes=is_replaced and slot.is_stale and slot.unsaved >= BLOCK_TOKENS,
            restored=stored if choice.restores else None,
        )  # fmt: skip
        if not transfer.is_empty:
            began, done = time.perf_counter(), anyio.Event()
            self._tasks.start_soon(self._transfer, transfer, done)
            try:
                await done.wait()
            except BaseException:
                self._abandoned.add(slot.number)
                if transfer.is_done:
                    self._free(slot)
                raise
            found.restore_ms = (time.perf_counter() - began) * 1000
            found.restored = transfer.restored if transfer.has_restored else None
            if choice.restores and not transfer.has_restored:
                found.blocks = 0
        if not found.continues and found.restored is None:
            self._in_ram.add(slot.chain, slot.openings)  # by the server, once it has the request
            slot.unsaved, slot.file = 0, slot.file if found.blocks else ""

    async def _transfer(self, transfer: Transfer, done: anyio.Event) -> None:
        await self._transfers.perform(transfer)
        done.set()
        if transfer.slot.number in self._abandoned:  # its request was canceled
            self._free(transfer.slot)

    # ---- ends of requests
    def _on_end(self, found: Assignment, outcome: Outcome, seen: CacheUsage | None) -> None:
        slot = found.slot
        if seen is not None:
            self._state.record(self._server.key).note_response(seen)
            self._learn(found, seen)
        elif outcome == "unknown" and found.restored is not None:
            self._learn(found, CacheUsage(cached=0, read=0))
        if slot is None or not found.is_placed:
            self._is_unsure = True
            total = 0 if seen is None else seen.cached + seen.read + seen.written
            self._placed.append((found, total))
        elif outcome in ("complete", "partial") and found.is_cached:
            self._fill(slot, found, seen)
        elif outcome != "rejected" or not found.is_cached:
            slot.clear()
            self._is_unsure = self._is_unsure or outcome == "unknown"
        if slot is not None:
            self._free(slot)

    def note_end(self) -> None:
        """Note that a request has ended, assigned or not."""
        self._pace.collisions.requests += 1
        self._idle.note_end()

    def _fill(self, slot: SlotState, found: Assignment, seen: CacheUsage | None) -> None:
        kept = slot.unsaved if found.continues and found.restored is None else 0
        if seen is None:
            slot.tokens = slot.unsaved = found.prompt_tokens
        else:
            slot.tokens = seen.cached + seen.read + seen.written
            lost = 0 if slot.file else seen.cached  # reused, and in no file
            slot.unsaved = min(kept + seen.read + seen.written + lost, slot.tokens)
        self._describe(slot, found)
        slot.task = None

    def _describe(self, slot: SlotState, found: Assignment) -> None:
        """Note that the conversation of *found* is in *slot*."""
        slot.request, slot.is_stale = found.request, found.chain is None
        if found.chain is not None:
            slot.chain = found.chain
        elif not found.continues:
            slot.chain = NO_CHAIN
        slot.openings, slot.namespace, slot.words = found.openings, found.namespace, found.words

    def _learn(self, found: Assignment, seen: CacheUsage) -> None:
        """Compare the tokens that were reused with those that were expected."""
        record = self._state.record(self._server.key)
        wanted, one = tokens_of_blocks(found.blocks), found.restored
        if one is not None:
            saved_ms = (record.gain_ms(seen.cached) or 0.0) - found.restore_ms
            known = self._library.get(one.file)
            if known is not None:
                done = known.restored(seen.cached, wanted, saved_ms, self._state.clock())
                self._tasks.start_soon(self._library.update, done)
            record.hits += 2 * seen.cached >= wanted
            record.failures += 10 * seen.cached < wanted
            self._count("reused_tokens_total", seen.cached)
        if found.slot is None and wanted and found.chain is not None:
            self._in_ram.learn(found.chain, was_found=2 * seen.cached >= wanted)
        if seen.cached < _FEWEST_TOKENS:
            found.source = ""
        elif one is not None and 2 * seen.cached >= wanted:
            found.source = "library"
        elif found.slot is not None and wanted and seen.cached >= wanted // 2:
            found.source = "slot"
        else:
            found.source = "server"

    def _free(self, slot: SlotState) -> None:
        slot.is_busy = False
        self._abandoned.discard(slot.number)
        freed, self._freed = self._freed, anyio.Event()
        freed.set()

    # ---- the server's own view
    async def _look(self) -> None:
        """Compare the table with the server's list of slots; what differs is forgotten."""
        self._is_unsure = False
        try:
            with anyio.fail_after(self._launch.settings.timeout_s):
                seen = await self._backend.slots()
        except (SlotError, OSError, TimeoutError) as error:
            log.debug("%s: %s", self._state.name, error)
            return
        for slot, now in zip(self.slots, seen, strict=False):
            if slot.is_busy or now.tokens is None or not now.was_used:
                continue
            if now.is_busy:  # its request has just ended, or was not seen here
                self._is_unsure = True
                continue
            is_same = slot.task in (None, now.task)
            slot.task = now.task
            prompt = min(slot.chain.tokens, slot.tokens) - 1
            if is_same and slot.tokens and prompt <= now.tokens <= slot.tokens + 2:
                continue
            self._in_ram.add(slot.chain, slot.openings)
            slot.clear()
            for placed in list(self._placed):
                found, total = placed
                if total and min(found.prompt_tokens, total) - 1 <= now.tokens <= total + 2:
                    self._describe(slot, found)
                    slot.tokens = slot.unsaved = now.tokens
                    self._uses += 1
                    slot.used = self._uses
                    self._placed.remove(placed)
                    break
        if not self._is_unsure:
            self._placed.clear()

    # ---- background
    async def run(self) -> None:
        """Save slots whenever the server is idle, until `stop`."""
        await self._idle.run(self._round)

    async def _round(self) -> None:
        if self._is_unsure:
            await self._look()
        for slot in self._by_growth():
            size = self._transfers.size_of(slot)
            if not self._transfers.is_due(slot) or not await self._pace.may_save(size, self._idle):
                continue
            if slot.is_busy or not self._transfers.is_due(slot):
                continue
            with anyio.CancelScope(shield=True):
                ms = await self._transfers.save(slot)
            if ms is not None:
                self._pace.note_background(ms, self._idle)
                self._count("checkpoints", 1)

    def _by_growth(self) -> Sequence[SlotState]:
        return sorted(
            (slot for slot in self.slots if not slot.is_busy), key=lambda slot: -slot.unsaved
        )

    def stop(self) -> None:
        """Start no further save, and leave requests as they are."""
        self._is_over = True
        self._idle.stop()

    async def save_all(self) -> None:
        """Save all slots that have grown, before the process ends; the caller limits the time."""
        if self._is_useless:
            return
        if self._is_unsure:
            await self._look()
        for slot in self._by_growth():
            if self._transfers.is_due(slot):
                self._count("saves", await self._transfers.save(slot) is not None)

    async def close(self) -> None:
        """Close the connection to the server."""
        await self._backend.__aexit__(None, None, None)
