"""State of one model's cache that its saves and restores share."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import asdict

import anyio

from ...runtime.fence import Fence
from ..system import threads
from .backend import KvBackend, UnsupportedServerError
from .checksums import Checksums
from .effectiveness import Effectiveness
from .manifest import ModelStore
from .run_statistics import RunStatistics
from .server import LaunchContext, Server

log = logging.getLogger(__name__)


class ModelState:
    """State of one model's cache; see `ModelCache` for its life.

    Args:
        name: Id of the model.
        store: Its files; opened.
        tasks: Task group for checksums.
        say: Appends a line to the model's log.
        clock: Wall clock; seconds since 1970.

    Attributes:
        digests: Checksums of its files.
        run: The running process, or the last one.
        blocker: Why nothing is kept; None if it is.
        failures: Number of failed saves and restores.
        settling: Set once the last save is in the manifest; None before the first.
    """

    def __init__(
        self, name: str, store: ModelStore, tasks: Fence, say: Callable[[str], None],
        clock: Callable[[], float] = time.time,
    ) -> None:  # fmt: skip
        self.name, self.store, self.clock = name, store, clock
        self.digests = Checksums(store.files, tasks)
        self.run = RunStatistics()
        self.blocker: str | None = None
        self.failures = 0
        self.settling: anyio.Event | None = None
        self._say = say
        self._records = {k: Effectiveness.load(v) for k, v in store.manifest.learned.items()}
        self._warned: set[str] = set()

    async def settled(self) -> None:
        """Wait until the last save is in the manifest."""
        if self.settling is not None:
            await self.settling.wait()

    async def identify(self, backend: KvBackend, launch: LaunchContext) -> Server | None:
        """Return the server's identity; None, logged once, if nothing of it can be kept."""
        try:
            server = await backend.facts(launch)
        except UnsupportedServerError as error:
            self._cannot(error.about, str(error))
            return None
        self.blocker = None
        return server

    def _cannot(self, about: str, why: str) -> None:
        self.blocker = f"nothing is kept: {why}"
        self.warn_once(about, self.blocker)

    def record(self, key: str) -> Effectiveness:
        """Return the measurements under fingerprint *key*."""
        record = self._records.get(key)
        if record is None:
            record = self._records[key] = Effectiveness()
        return record

    def verdicts(self) -> dict[str, str]:
        """Return the verdict under each fingerprint."""
        return {key: record.verdict for key, record in self._records.items()}

    def forget(self, file: str) -> None:
        """Drop one saved slot."""
        self.store.forget(file)
        self.digests.forget(file)

    async def commit(self, *, is_durable: bool = True) -> None:
        """Write the manifest; raises the same errors as ``ModelStore.commit``."""
        known = {entry.fingerprint for entry in self.store.manifest.entries}
        known.add(self.run.fingerprint)
        self.store.manifest.learned = {
            key: asdict(record) for key, record in self._records.items() if key in known
        }
        await threads.run(lambda: self.store.commit(is_durable=is_durable))

    def count_failure(self) -> None:
        """Count a failed save or restore."""
        self.failures += 1

    def warn_once(self, about: str, text: str) -> None:
        """Write *text* into the model's log, and log a warning the first time for *about*."""
        self._say(f"[swapchart] kv: {text}")
        if about not in self._warned:
            self._warned.add(about)
            log.warning("%s: kv: %s", self.name, text)

    def tell(self, text: str) -> None:
        """Write *text* into the model's log and into the proxy's."""
        log.info("%s: kv: %s", self.name, text)
        self._say(f"[swapchart] kv: {text}")
