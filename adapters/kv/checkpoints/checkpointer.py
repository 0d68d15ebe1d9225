"""Checkpoints of the slots of one running server."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Sequence

import anyio

from ....dataclass import dataclass
from ..backend import KvBackend
from ..effectiveness import CacheUsage
from ..files import KvStoreError
from ..save import Save
from ..server import LaunchContext, Server
from ..slots import Slot, SlotError
from ..state import ModelState
from .idle import IdleTime
from .pace import Pace
from .policy import is_due

log = logging.getLogger(__name__)

_USAGES = 64  # responses that growth is read from


@dataclass(slots=True)
class _Growth:
    """Growth of one slot since its last checkpoint.

    Attributes:
        task: Number of the slot's request that was looked at last.
        tokens: Tokens of the slot then.
        unsaved: Tokens among them that no file has.
    """

    task: int | None = None
    tokens: int = 0
    unsaved: int = 0


class Checkpointer:
    """Saves slots of one process while it is idle.

    Args:
        state: State of the model's cache.
        launch: Launch context of the process.
        server: Identity of the process.
        connect: Returns a connection to the process.
        is_idle: Returns True if no request is in flight or queued for the model.
        pace: Limits of background saves.
        settle: Writes a save to the manifest, in the background.
    """

    def __init__(
        self, state: ModelState, launch: LaunchContext, server: Server,
        connect: Callable[[], KvBackend], is_idle: Callable[[], bool], pace: Pace,
        settle: Callable[[Save], None],
    ) -> None:  # fmt: skip
        self._state, self._launch, self._server = state, launch, server
        self._connect, self._pace, self._settle = connect, pace, settle
        self._idle = IdleTime(is_idle)
        self._usages: deque[CacheUsage] = deque(maxlen=_USAGES)
        self._grown: dict[int, _Growth] = {}

    def note_end(self) -> None:
        """Note that a request has ended."""
        self._pace.collisions.requests += 1
        self._idle.note_end()

    def note(self, seen: CacheUsage) -> None:
        """Note the cache usage of a response."""
        self._usages.append(seen)

    def stop(self) -> None:
        """Start no further save."""
        self._idle.stop()

    async def run(self) -> None:
        """Save slots whenever the server is idle, until `stop`."""
        await self._idle.run(self._round)

    async def _round(self) -> None:
        state = self._state
        if not await self._idle.wait_quiet(0.0):
            return
        await state.settled()
        if state.record(self._server.key).verdict == "no-op":
            return
        async with self._connect() as backend:
            saving = Save(state, self._launch, backend)
            saving.server, saving.is_checkpoint = self._server, True
            try:
                with anyio.fail_after(self._launch.settings.timeout_s):
                    slots = await backend.slots()
                self._look(slots)
                for slot in sorted(slots, key=lambda slot: -self._unsaved(slot)):
                    await self._save(saving, slot)
            except (KvStoreError, SlotError, OSError) as error:
                state.count_failure()
                state.warn_once("checkpoint", f"no checkpoint: {error}; earlier ones are kept")
            finally:
                if saving.saved:
                    self._settle(saving)

    def _unsaved(self, slot: Slot) -> int:
        known = self._grown.get(slot.number)
        return 0 if known is None else known.unsaved

    def _look(self, slots: Sequence[Slot]) -> None:
        """Derive the growth of each slot from the responses since the last look."""
        for slot in slots:
            known = self._grown.setdefault(slot.number, _Growth())
            if not slot.was_used or slot.task == known.task or slot.tokens is None:
                continue
            known.unsaved = min(self._growth(slot.tokens, known), slot.tokens)
            known.task, known.tokens = slot.task, slot.tokens
        self._usages.clear()

    def _growth(self, tokens: int, known: _Growth) -> int:
        """Return the tokens that no file has, of a slot that has *tokens* now."""
        cached, grown = tokens, 0
        for seen in reversed(self._usages):
            prompt = seen.cached + seen.read
            # Builds differ in whether the generated tokens count.
            if prompt - 1 <= cached <= prompt + seen.written:
                cached, grown = seen.cached, grown + seen.read + seen.written
        if not grown or 2 * cached < known.tokens:  # unknown, or another conversation
            return tokens
        return grown + known.unsaved

    async def _save(self, saving: Save, slot: Slot) -> None:
        record = self._state.record(self._server.key)
        tokens, pace = slot.tokens or 0, self._pace
        size = record.expected_bytes(tokens)
        is_wanted = is_due(
            tokens, self._unsaved(slot), record, save_ms=pace.speed.expected_ms(size),
            budget_share=pace.budget.share(time.monotonic()),
            min_tokens=self._launch.settings.min_tokens,
        )  # fmt: skip
        if not is_wanted or slot.is_busy or slot.lora != self._server.lora:
            return
        if not await pace.may_save(size, self._idle):
            return
        count = len(saving.saved)
        # Shielded, so that its file is complete, or removed.
        with anyio.move_on_after(self._launch.settings.timeout_s, shield=True):
            await saving.save_slot(slot, self._server.key)
        if len(saving.saved) > count:
            entry = saving.saved[-1]
            pace.note(entry.size, saving.stall_ms)
            pace.note_background(saving.stall_ms, self._idle)
            self._grown[slot.number].unsaved = 0
