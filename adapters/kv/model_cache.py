"""KV cache of one model, through the life of its process.

Everything here may fail, and the reaction is always the same: log the reason once, and let the
server start without the cache. Saved slots are given up only when better ones replace them.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import anyio

from ...runtime.fence import Fence
from .backend import KvBackend
from .checkpoints.checkpointer import Checkpointer
from .checkpoints.pace import Pace
from .effectiveness import CacheUsage
from .files import KvStoreError
from .library.session import LibrarySession
from .library.store import ConversationStore
from .llama_server import LlamaServer
from .manifest import ModelStore
from .restore import Restore, prepare
from .run_statistics import RunStatistics
from .save import Save
from .server import LaunchContext, Server
from .settings import KvSettings
from .slots import SlotError
from .state import ModelState

log = logging.getLogger(__name__)

_FAULTS = frozenset({4, 6, 7, 8, 11})  # SIGILL, SIGABRT, SIGBUS, SIGFPE, SIGSEGV: its own crash


class ModelCache:
    """KV cache of one model.

    Args:
        name: Id of the model.
        store: Its files; opened.
        tasks: Task group for work that continues after a hook.
        say: Appends a line to the model's log.
        clock: Wall clock; seconds since 1970.
        is_idle: Returns True if no request is in flight or queued for the model.
        conversations: Files of its library.

    Attributes:
        state: State that its saves and restores share.
        on_restored: Called after a restore with the number of tokens, its duration, and the
            expected time to read them anew or None; both in ms.
        library: Its library; None if it cannot have one.
    """

    def __init__(
        self, name: str, store: ModelStore, tasks: Fence, say: Callable[[str], None],
        clock: Callable[[], float] = time.time, is_idle: Callable[[], bool] = lambda: False,
        conversations: ConversationStore | None = None,
    ) -> None:  # fmt: skip
        self.state = ModelState(name, store, tasks, say, clock)
        self._tasks, self._is_idle = tasks, is_idle
        self._pace: Pace | None = None
        self._checkpointer: Checkpointer | None = None
        self.on_restored: Callable[[int, float, float | None], None] = lambda *_: None
        self._counts = {
            "saves": 0, "checkpoints": 0, "restores": 0, "saved_tokens_total": 0,
            "saved_bytes_total": 0, "restored_tokens_total": 0, "reused_tokens_total": 0,
        }  # fmt: skip
        self.library = None if conversations is None else LibrarySession(
            self.state, conversations, tasks, is_idle, self._add, self._restored
        )  # fmt: skip
        self._last: dict[str, float | None] = {"last_save_ms": None, "last_restore_ms": None}

    def _add(self, name: str, number: int) -> None:
        self._counts[name] += number

    def _restored(self, tokens: int, ms: float) -> None:
        self._last["last_restore_ms"] = ms
        known = self.state.record(self.state.run.fingerprint)
        self.on_restored(tokens, ms, known.gain_ms(tokens))

    # ---- the life of a process
    def enforce(self, settings: KvSettings) -> None:
        """Drop entries beyond age and size limits; the next commit writes the manifest."""
        for entry in self.state.store.over_quota(
            settings.max_bytes, settings.max_age_s, self.state.clock()
        ):
            self.state.forget(entry.file)

    async def prepare(self, launch: LaunchContext) -> None:
        """Begin the work that can be done while the server loads."""
        await self.settled()
        self.enforce(launch.settings)
        prepare(self.state)

    async def restore(self, endpoint: str, launch: LaunchContext) -> None:
        """Fill the slots of a server that has just become healthy, most valuable entries first."""
        self.state.run = RunStatistics()
        began, limit = time.perf_counter(), launch.settings.timeout_s
        problem, server = "", None
        with anyio.move_on_after(limit) as scope:
            try:
                async with _client(endpoint, launch) as client:
                    if await self._begin_library(endpoint, launch, client):
                        return
                    restoring = Restore(self.state, launch, client)
                    try:
                        await restoring.run()
                    finally:
                        server = restoring.server
            except (KvStoreError, SlotError, OSError) as error:
                problem = f"not restored: {error}"
        if scope.cancelled_caught:
            problem = f"restore canceled after {limit:g} s"
        if problem:
            self.state.count_failure()
            self.state.warn_once("restore", problem)
        entries = self.state.run.restored.values()
        if entries:
            tokens, ms = sum(entry.tokens for entry in entries), _ms_since(began)
            self._counts["restores"] += len(entries)
            self._counts["restored_tokens_total"] += tokens
            self.state.tell(f"restored {tokens} tokens into {len(entries)} slots in {ms:g} ms")
            self._restored(tokens, ms)
        if server is not None and launch.settings.has_checkpoints:
            self._begin_checkpoints(endpoint, launch, server)

    async def _begin_library(self, endpoint: str, launch: LaunchContext, client: KvBackend) -> bool:
        """Leave the slots to the library, if there is one: it restores them on demand."""
        if self.library is None or launch.settings.library_bytes is None:
            return False
        await self.state.settled()
        server = await self.state.identify(client, launch)
        if server is None:
            return False
        pace = self.paced(launch.settings)
        return await self.library.begin(launch, server, lambda: _client(endpoint, launch), pace)

    def paced(self, settings: KvSettings) -> Pace:
        """Return the limits of background saves, which all processes of the model share."""
        if self._pace is None:
            self._pace = Pace(settings.write_budget)
        self._pace.budget.resize(settings.write_budget, time.monotonic())
        return self._pace

    def _begin_checkpoints(self, endpoint: str, launch: LaunchContext, server: Server) -> None:
        pace = self.paced(launch.settings)
        self._end_checkpoints()
        self._checkpointer = Checkpointer(
            self.state, launch, server, lambda: _client(endpoint, launch), self._is_idle,
            pace, self._settle_checkpoint,
        )  # fmt: skip
        self._tasks.start_soon(self._checkpointer.run)

    def _end_checkpoints(self) -> None:
        if self._checkpointer is not None:
            self._checkpointer.stop()
            self._checkpointer = None

    def _settle_checkpoint(self, saving: Save) -> None:
        self._counts["checkpoints"] += len(saving.saved)
        self._counts["saved_tokens_total"] += sum(entry.tokens for entry in saving.saved)
        self._counts["saved_bytes_total"] += sum(entry.size for entry in saving.saved)
        self._settle(saving)

    async def save(self, endpoint: str, launch: LaunchContext) -> None:
        """Save the slots of a server that is about to stop or sleep."""
        self._end_checkpoints()
        if self.library is not None and self.library.director is not None:
            await self.library.end(launch.settings)
            return
        began, limit = time.perf_counter(), launch.settings.timeout_s
        problem = ""
        async with _client(endpoint, launch) as client:
            saving = Save(self.state, launch, client)
            try:
                with anyio.move_on_after(limit) as scope:
                    await saving.ask()
            except (KvStoreError, SlotError, OSError) as error:
                problem = f"not saved: {error}; what was saved before is kept"
            finally:  # also when the hook is canceled: files that were written are kept
                self._settle(saving)
        if scope.cancelled_caught:
            problem = f"save canceled after {limit:g} s"
        if problem:
            self.state.count_failure()
            self.state.warn_once("save", problem)
        if saving.saved:
            tokens, ms = sum(entry.tokens for entry in saving.saved), _ms_since(began)
            self._last["last_save_ms"] = ms
            self._counts["saves"] += len(saving.saved)
            self._counts["saved_tokens_total"] += tokens
            self._counts["saved_bytes_total"] += sum(entry.size for entry in saving.saved)
            self.state.tell(f"saved {tokens} tokens of {len(saving.saved)} slots in {ms:g} ms")

    def died(self, signal: int | None) -> None:
        """Handle an end of the process that was not requested.

        If the process crashed right after a restore, the restored slots are not used again, so that
        they cannot crash it repeatedly.
        """
        self._end_checkpoints()
        if self.library is not None:
            self.library.died()
        if signal in _FAULTS and self.state.run.restored and not self.state.run.is_proven:
            entries = self.state.run.restored.values()
            self.state.warn_once(
                "crash", "it crashed after a restore; the restored slots are not used again"
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
            self.state.warn_once("keep", f"not saved: {error}; what was saved before is kept")
        finally:
            settled.set()

    @property
    def is_settled(self) -> bool:
        """True if the last save has been written to the manifest."""
        if self.library is not None and not self.library.is_settled:
            return False
        return self.state.settling is None or self.state.settling.is_set()

    async def settled(self) -> None:
        """Wait until the last save has been written to the manifest."""
        await self.state.settled()
        if self.library is not None:
            await self.library.settled()

    async def aclose(self) -> None:
        """Wait until all is written, and close connections; the process is left as it is."""
        self._end_checkpoints()
        await self.settled()
        if self.library is not None:
            await self.library.close()

    # ---- answers
    def note_end(self, is_seen: bool) -> bool:
        """Count a request that has ended, and return True if its response should be evaluated.

        Args:
            is_seen: There is a response to evaluate.
        """
        self.state.run.ended += 1
        self.state.run.is_proven = self.state.run.is_proven or is_seen
        if self.library is not None and self.library.director is not None:
            self.library.director.note_end()
            return False  # it evaluates the responses itself
        if self._checkpointer is not None:
            self._checkpointer.note_end()
        return is_seen and (self.state.run.is_watching or self._checkpointer is not None)

    def note(self, seen: CacheUsage) -> None:
        """Evaluate the cache usage of a response."""
        self._counts["reused_tokens_total"] += seen.cached if self.state.run.restored else 0
        self.state.run.note(seen, self.state.record(self.state.run.fingerprint))
        if self._checkpointer is not None:
            self._checkpointer.note(seen)

    async def purge(self) -> int:
        """Remove all that is kept; return the number of conversations.

        Raises:
            KvStoreError: The manifest cannot be written.
        """
        await self.settled()
        files = [entry.file for entry in self.state.store.manifest.entries]
        for file in files:
            self.state.forget(file)
        if files:
            await self.state.commit()
        return len(files) + (0 if self.library is None else await self.library.purge())

    # ---- what others may read
    def facts(self) -> dict[str, Any]:
        """Return the public facts: verdict, sizes, times in ms, and counts of this run."""
        entries = self.state.store.manifest.entries
        return {
            "problem": self.state.blocker,
            "verdict": self.state.record(self.state.run.fingerprint).verdict,
            "saved_tokens": sum(entry.tokens for entry in entries),
            "saved_bytes": sum(entry.size for entry in entries),
            **({} if self.library is None else self.library.facts()),
            **self._last,
            **self._counts,
            "failures": self.state.failures,
        }


def _client(endpoint: str, launch: LaunchContext) -> KvBackend:
    # The client's own limit is for a server that hangs after the limit of the hook was missed.
    limit = launch.settings.hook_timeout_s
    return LlamaServer(endpoint, api_key=launch.facts.api_key, timeout_s=limit)


def _ms_since(began: float) -> float:
    return round((time.perf_counter() - began) * 1000, 1)
