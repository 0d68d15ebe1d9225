"""The continuity of one model, around the life of its process.

Everything here may fail, and the answer is always the same: say why, once, and let the server
start plainly. What was saved before is given up only when something better is in its place.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import anyio

from ...runtime.fence import Fence
from .effectiveness import CacheUsage
from .files import KvStoreError
from .manifest import ModelStore
from .restore import Restore, prepare
from .run_statistics import RunStatistics
from .save import Save
from .server import LaunchContext
from .settings import KvSettings
from .slot_client import SlotClient, SlotError
from .state import ModelState

log = logging.getLogger(__name__)

_FAULTS = frozenset({4, 6, 7, 8, 11})  # SIGILL, SIGABRT, SIGBUS, SIGFPE, SIGSEGV: its own doing


class ModelCache:
    """The continuity of one model.

    Args:
        name: Of the model.
        store: Its files; opened.
        tasks: Where work goes on that nobody waits for.
        say: Takes a line for the model's log.
        clock: Wall clock; seconds since 1970.

    Attributes:
        state: What its saves and restores share.
    """

    def __init__(
        self, name: str, store: ModelStore, tasks: Fence, say: Callable[[str], None],
        clock: Callable[[], float] = time.time,
    ) -> None:  # fmt: skip
        self.state = ModelState(name, store, tasks, say, clock)
        self._tasks = tasks
        self._counts = {
            "saves": 0, "restores": 0, "saved_tokens_total": 0,
            "saved_bytes_total": 0, "restored_tokens_total": 0, "reused_tokens_total": 0,
        }  # fmt: skip
        self._last: dict[str, float | None] = {"last_save_ms": None, "last_restore_ms": None}

    # ---- the life of a process
    def enforce(self, settings: KvSettings) -> None:
        """Give up what is too old or too much; the manifest is written by whoever is next."""
        for entry in self.state.store.over_quota(
            settings.max_bytes, settings.max_age_s, self.state.clock()
        ):
            self.state.forget(entry.file)

    async def prepare(self, terms: LaunchContext) -> None:
        """Begin what can be done while the server loads."""
        await self.settled()
        self.enforce(terms.settings)
        prepare(self.state)

    async def restore(self, endpoint: str, terms: LaunchContext) -> None:
        """Fill the slots of a server that has just become healthy, the most valuable first."""
        self.state.run = RunStatistics()
        began, limit = time.perf_counter(), terms.settings.timeout_s
        problem = ""
        with anyio.move_on_after(limit) as scope:
            try:
                async with _client(endpoint, terms) as client:
                    await Restore(self.state, terms, client).run()
            except (KvStoreError, SlotError, OSError) as error:
                problem = f"not restored: {error}"
        if scope.cancelled_caught:
            problem = f"restoring took more than {limit:g} s and was cut short"
        if problem:
            self.state.count_failure()
            self.state.complain("restore", problem)
        entries = self.state.run.restored.values()
        if entries:
            tokens, ms = sum(entry.tokens for entry in entries), _ms_since(began)
            self._last["last_restore_ms"] = ms
            self._counts["restores"] += len(entries)
            self._counts["restored_tokens_total"] += tokens
            self.state.tell(f"restored {tokens} tokens into {len(entries)} slots in {ms:g} ms")

    async def save(self, endpoint: str, terms: LaunchContext) -> None:
        """Save the slots of a server that is about to stop or sleep."""
        began, limit = time.perf_counter(), terms.settings.timeout_s
        problem = ""
        async with _client(endpoint, terms) as client:
            saving = Save(self.state, terms, client)
            try:
                with anyio.move_on_after(limit) as scope:
                    await saving.ask()
            except (KvStoreError, SlotError, OSError) as error:
                problem = f"not saved: {error}; what was saved before is kept"
            finally:  # also when the whole hook is cut short: what is written, is written
                self._settle(saving)
        if scope.cancelled_caught:
            problem = f"saving took more than {limit:g} s and was cut short"
        if problem:
            self.state.count_failure()
            self.state.complain("save", problem)
        if saving.saved:
            tokens, ms = sum(entry.tokens for entry in saving.saved), _ms_since(began)
            self._last["last_save_ms"] = ms
            self._counts["saves"] += len(saving.saved)
            self._counts["saved_tokens_total"] += tokens
            self._counts["saved_bytes_total"] += sum(entry.size for entry in saving.saved)
            self.state.tell(f"saved {tokens} tokens of {len(saving.saved)} slots in {ms:g} ms")

    def died(self, signal: int | None) -> None:
        """Its process ended without being asked to.

        If that was its own fault, right after a restore, what was restored is not used again: a
        restore that crashes the server must not do so for ever.
        """
        if signal in _FAULTS and self.state.run.restored and not self.state.run.is_proven:
            entries = self.state.run.restored.values()
            self.state.complain(
                "crash", "it crashed after a restore: what was restored is left out"
            )
            self.state.store.update(*(replace(entry, is_suspect=True) for entry in entries))

    def _settle(self, saving: Save) -> None:
        if saving.server is not None:
            self.state.settling = anyio.Event()
            self._tasks.start_soon(self._keep, saving, self.state.settling)

    async def _keep(self, saving: Save, settled: anyio.Event) -> None:
        try:
            await saving.keep()
        except KvStoreError as error:
            self.state.count_failure()
            self.state.complain("keep", f"not saved: {error}; what was saved before is kept")
        finally:
            settled.set()

    @property
    def is_settled(self) -> bool:
        """Tell whether the last save has been written down."""
        return self.state.settling is None or self.state.settling.is_set()

    async def settled(self) -> None:
        """Wait until the last save has been written down."""
        await self.state.settled()

    # ---- answers
    def note_end(self, is_seen: bool) -> bool:
        """One request has ended; tell whether its answer should be looked at.

        Args:
            is_seen: There is an answer that may tell something.
        """
        self.state.run.ended += 1
        self.state.run.is_proven = self.state.run.is_proven or is_seen
        return is_seen and self.state.run.is_watching

    def note(self, seen: CacheUsage) -> None:
        """Take what an answer tells."""
        self._counts["reused_tokens_total"] += seen.cached if self.state.run.restored else 0
        self.state.run.note(seen, self.state.record(self.state.run.fingerprint))

    # ---- what others may read
    def facts(self) -> dict[str, Any]:
        """Return what can be shown: verdict, sizes, times in ms, and counts of this run of ours."""
        entries = self.state.store.manifest.entries
        return {
            "problem": self.state.blocker,
            "verdict": self.state.record(self.state.run.fingerprint).verdict,
            "saved_tokens": sum(entry.tokens for entry in entries),
            "saved_bytes": sum(entry.size for entry in entries),
            **self._last,
            **self._counts,
            "failures": self.state.failures,
        }


def _client(endpoint: str, terms: LaunchContext) -> SlotClient:
    # Its own limit is for answers that hang after ours, which ends it in good order, was missed.
    limit = terms.settings.hook_timeout_s
    return SlotClient(endpoint, api_key=terms.facts.api_key, timeout_s=limit)


def _ms_since(began: float) -> float:
    return round((time.perf_counter() - began) * 1000, 1)
