"""Library of one model through the lives of its processes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

import anyio

from ....runtime.fence import Fence
from ...system import threads
from ..backend import KvBackend
from ..checkpoints.pace import Pace
from ..files import KvStoreError
from ..server import LaunchContext, Server
from ..settings import KvSettings
from ..slots import SlotError
from ..state import ModelState
from .conversation import Conversation
from .director import Director
from .library import Library
from .store import ConversationStore
from .transfers import Counter, Restored

log = logging.getLogger(__name__)

_UNIFIED = (
    "the library is not used: llama-server moves idle slots out of unified ones; give it "
    "`--parallel N` without --kv-unified"
)


class LibrarySession:
    """Library of one model, and the director of its running process.

    Args:
        state: State of the model's cache.
        store: Files of the conversations.
        tasks: Task group for work that continues after a request or a hook.
        is_idle: Returns True if no request is in flight or queued for the model.
        count: (name, number) -> None; adds to a counter of the model.
        note_restored: (tokens, ms) -> None; called after each restore.

    Attributes:
        director: Director of the slots of the running process; None without a library.
    """

    def __init__(
        self, state: ModelState, store: ConversationStore, tasks: Fence,
        is_idle: Callable[[], bool], count: Counter, note_restored: Restored,
    ) -> None:  # fmt: skip
        self._state, self._store, self._tasks = state, store, tasks
        self._is_idle, self._count, self._note_restored = is_idle, count, note_restored
        self._library: Library | None = None
        self.director: Director | None = None

    async def begin(
        self, launch: LaunchContext, server: Server, connect: Callable[[], KvBackend], pace: Pace
    ) -> bool:
        """Begin to direct the slots of a process that is healthy; False if there is no library."""
        settings = launch.settings
        if settings.library_bytes is None:
            return False
        if not launch.facts.has_own_slots:
            self._state.warn_once("unified", _UNIFIED)
            return False
        library = self._library = self._library or Library(
            self._state, self._store, settings, self._tasks
        )
        library.settings = settings
        try:
            await library.open(server.key)
        except KvStoreError as error:
            self._state.warn_once("library", f"the library is not used: {error}")
            return False
        await self.close()
        backend = await connect().__aenter__()
        self._state.run.fingerprint = server.key
        self.director = Director(
            self._state, library, launch, server, backend, self._is_idle, pace, self._tasks,
            self._count, self._note_restored,
        )  # fmt: skip
        self._tasks.start_soon(self.director.run)
        return True

    async def end(self, settings: KvSettings) -> None:
        """Save what has grown, before the process stops or sleeps; at most for `timeout_s`."""
        director = self._drop()
        if director is None:
            return
        with anyio.move_on_after(settings.timeout_s) as scope:
            try:
                await director.save_all()
            except (KvStoreError, SlotError, OSError) as error:
                self._state.count_failure()
                self._state.warn_once("save", f"not saved: {error}; what was saved before is kept")
        if scope.cancelled_caught:
            text = f"save canceled after {settings.timeout_s:g} s"
            self._state.warn_once("save", text)
        await director.close()
        try:
            await self._state.commit(is_durable=False)  # what was measured
        except KvStoreError as error:
            log.debug("%s: %s", self._state.name, error)

    async def close(self) -> None:
        """Leave the process as it is, and close the connection to it."""
        director = self._drop()
        if director is not None:
            await director.close()

    def died(self) -> None:
        """Handle an end of the process that was not requested."""
        director = self._drop()
        if director is not None:
            self._tasks.start_soon(director.close)

    def _drop(self) -> Director | None:
        director, self.director = self.director, None
        if director is not None:
            director.stop()
        return director

    @property
    def is_settled(self) -> bool:
        """True if all conversations that were saved have their description."""
        return self._library is None or self._library.is_settled

    async def settled(self) -> None:
        """Wait until all conversations that were saved have their description."""
        if self._library is not None:
            await self._library.settled()

    def conversations(self) -> list[Conversation] | None:
        """Return all conversations; None before the first start of the model."""
        return None if self._library is None else self._library.all()

    async def purge(self) -> int:
        """Remove all conversations; return their number."""
        if self._library is not None:
            return await self._library.purge()
        found = await threads.run(self._store.read)
        await threads.run(self._store.purge)
        return len(found)

    def facts(self) -> Mapping[str, int | float]:
        """Return the public facts; empty without a library."""
        library = self._library
        if library is None:
            return {}
        return {
            "conversations": len(library), "library_bytes": library.size,
            "library_saved_s": round(library.saved_s, 3),
        }  # fmt: skip
