"""The continuity of one model, around the life of its process.

Everything here may fail, and the answer is always the same: say why, once, and let the server
start plainly. What was saved before is given up only when something better is in its place.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import anyio
from anyio import to_thread

from ...runtime.fence import Fence
from .digests import Digests
from .facts import ServerFacts
from .files import KvStoreError
from .fingerprint import Fingerprint
from .proof import Record, Seen
from .restoring import Restoring, prepare
from .run import Run
from .saving import Saving
from .settings import KvSettings
from .slots import SlotClient, SlotError
from .store import ModelStore

log = logging.getLogger(__name__)

_FAULTS = frozenset({4, 6, 7, 8, 11})  # SIGILL, SIGABRT, SIGBUS, SIGFPE, SIGSEGV: its own doing


@dataclass(frozen=True, slots=True)
class Terms:
    """What holds for one process: how it was started, and what was wanted then.

    Attributes:
        facts: Where its identity is asked for.
        settings: What is wanted.
    """

    facts: ServerFacts
    settings: KvSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A running server.

    Attributes:
        fingerprint: What its saved slots depend on.
        slots: How many it has.
        lora: Adapters of a request that asks for none, as JSON.
        is_asleep: Its cache is gone, and asking for it might wake it.
    """

    fingerprint: Fingerprint
    slots: int
    lora: str = "[]"
    is_asleep: bool = False

    @property
    def key(self) -> str:
        """Short text for the fingerprint."""
        return self.fingerprint.key

    @property
    def facts(self) -> Mapping[str, str]:
        """What the fingerprint is made of."""
        return self.fingerprint.facts

    def differences(self, facts: Mapping[str, str]) -> list[str]:
        """Say in words what has changed since *facts*."""
        return self.fingerprint.differences(facts)


class ModelKv:
    """The continuity of one model.

    Args:
        name: Of the model.
        store: Its files; opened.
        tasks: Where work goes on that nobody waits for.
        say: Takes a line for the model's log.
        clock: Wall clock; seconds since 1970.

    Attributes:
        digests: Checksums of its files.
        run: The process that runs, or the last one.
    """

    def __init__(
        self, name: str, store: ModelStore, tasks: Fence, say: Callable[[str], None],
        clock: Callable[[], float] = time.time,
    ) -> None:  # fmt: skip
        self.name, self.store, self.clock = name, store, clock
        self.digests = Digests(store.files, tasks)
        self.run = Run()
        self._tasks, self._say = tasks, say
        self._records = {k: Record.load(v) for k, v in store.manifest.learned.items()}
        self._warned: set[str] = set()
        self._hindrance: str | None = None
        self._settled: anyio.Event | None = None
        self._counts = {
            "saves": 0, "restores": 0, "failures": 0, "saved_tokens_total": 0,
            "saved_bytes_total": 0, "restored_tokens_total": 0, "reused_tokens_total": 0,
        }  # fmt: skip
        self._last: dict[str, float | None] = {"last_save_ms": None, "last_restore_ms": None}

    # ---- the life of a process
    def enforce(self, settings: KvSettings) -> None:
        """Give up what is too old or too much; the manifest is written by whoever is next."""
        for entry in self.store.over_quota(settings.max_bytes, settings.max_age_s, self.clock()):
            self.forget(entry.file)

    async def prepare(self, terms: Terms) -> None:
        """Begin what can be done while the server loads."""
        await self.settled()
        self.enforce(terms.settings)
        prepare(self)

    async def restore(self, endpoint: str, terms: Terms) -> None:
        """Fill the slots of a server that has just become healthy, the most valuable first."""
        self.run = Run()
        began, limit = time.perf_counter(), terms.settings.timeout_s
        problem = ""
        with anyio.move_on_after(limit) as scope:
            try:
                async with _client(endpoint, terms) as client:
                    await Restoring(self, terms, client).run()
            except (KvStoreError, SlotError, OSError) as error:
                problem = f"not restored: {error}"
        if scope.cancelled_caught:
            problem = f"restoring took more than {limit:g} s and was cut short"
        if problem:
            self.count_failure()
            self.complain("restore", problem)
        entries = self.run.restored.values()
        if entries:
            tokens, ms = sum(entry.tokens for entry in entries), _ms_since(began)
            self._last["last_restore_ms"] = ms
            self._counts["restores"] += len(entries)
            self._counts["restored_tokens_total"] += tokens
            self._tell(f"restored {tokens} tokens into {len(entries)} slots in {ms:g} ms")

    async def save(self, endpoint: str, terms: Terms) -> None:
        """Save the slots of a server that is about to stop or sleep."""
        began, limit = time.perf_counter(), terms.settings.timeout_s
        problem = ""
        async with _client(endpoint, terms) as client:
            saving = Saving(self, terms, client)
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
            self.count_failure()
            self.complain("save", problem)
        if saving.saved:
            tokens, ms = sum(entry.tokens for entry in saving.saved), _ms_since(began)
            self._last["last_save_ms"] = ms
            self._counts["saves"] += len(saving.saved)
            self._counts["saved_tokens_total"] += tokens
            self._counts["saved_bytes_total"] += sum(entry.size for entry in saving.saved)
            self._tell(f"saved {tokens} tokens of {len(saving.saved)} slots in {ms:g} ms")

    def died(self, signal: int | None) -> None:
        """Its process ended without being asked to.

        If that was its own fault, right after a restore, what was restored is not used again: a
        restore that crashes the server must not do so for ever.
        """
        if signal in _FAULTS and self.run.restored and not self.run.is_proven:
            entries = self.run.restored.values()
            self.complain("crash", "it crashed after a restore: what was restored is left out")
            self.store.update(*(replace(entry, is_suspect=True) for entry in entries))

    def _settle(self, saving: Saving) -> None:
        if saving.server is not None:
            self._settled = anyio.Event()
            self._tasks.start_soon(self._keep, saving, self._settled)

    async def _keep(self, saving: Saving, settled: anyio.Event) -> None:
        try:
            await saving.keep()
        except KvStoreError as error:
            self.count_failure()
            self.complain("keep", f"not saved: {error}; what was saved before is kept")
        finally:
            settled.set()

    @property
    def is_settled(self) -> bool:
        """Tell whether the last save has been written down."""
        return self._settled is None or self._settled.is_set()

    async def settled(self) -> None:
        """Wait until the last save has been written down."""
        if self._settled is not None:
            await self._settled.wait()

    # ---- answers
    def note_end(self, is_seen: bool) -> bool:
        """One request has ended; tell whether its answer should be looked at.

        Args:
            is_seen: There is an answer that may tell something.
        """
        self.run.ended += 1
        self.run.is_proven = self.run.is_proven or is_seen
        return is_seen and self.run.is_watching

    def note(self, seen: Seen) -> None:
        """Take what an answer tells."""
        self._counts["reused_tokens_total"] += seen.cached if self.run.restored else 0
        self.run.note(seen, self.record(self.run.fingerprint))

    # ---- what others may read
    def facts(self) -> dict[str, Any]:
        """Return what can be shown: verdict, sizes, times in ms, and counts of this run of ours."""
        entries = self.store.manifest.entries
        return {
            "problem": self._hindrance,
            "verdict": self.record(self.run.fingerprint).verdict,
            "saved_tokens": sum(entry.tokens for entry in entries),
            "saved_bytes": sum(entry.size for entry in entries),
            **self._last,
            **self._counts,
        }

    # ---- for saves and restores
    async def identify(self, client: SlotClient, terms: Terms) -> Server | None:
        """Ask the server who it is; None, said once, when nothing can be kept of it."""
        props = await client.props()
        if props is None:
            self._cannot("foreign", "no /props of a llama-server here")
            return None
        has_adapters = terms.facts.line.has("--lora", "--lora-scaled")
        adapters = await client.adapters() if has_adapters else ""
        found = await to_thread.run_sync(
            terms.facts.learn, props, adapters, terms.settings.allows_swa
        )
        if isinstance(found, str):
            self._cannot(found, found)
            return None
        self._hindrance = None
        return Server(
            fingerprint=found, slots=props["total_slots"], lora=_default_lora(props),
            is_asleep=bool(props.get("is_sleeping")),
        )  # fmt: skip

    def _cannot(self, about: str, why: str) -> None:
        self._hindrance = f"nothing is kept: {why}"
        self.complain(about, self._hindrance)

    def record(self, key: str) -> Record:
        """Return what was measured under fingerprint *key*."""
        record = self._records.get(key)
        if record is None:
            record = self._records[key] = Record()
        return record

    def forget(self, file: str) -> None:
        """Give up one saved slot."""
        self.store.forget(file)
        self.digests.forget(file)

    async def commit(self, *, is_durable: bool = True) -> None:
        """Write the manifest; raises as ``ModelStore.commit``."""
        known = {entry.fingerprint for entry in self.store.manifest.entries}
        known.add(self.run.fingerprint)
        self.store.manifest.learned = {
            key: asdict(record) for key, record in self._records.items() if key in known
        }
        await to_thread.run_sync(lambda: self.store.commit(is_durable=is_durable))

    def count_failure(self) -> None:
        """Something was not saved or not restored."""
        self._counts["failures"] += 1

    def complain(self, about: str, text: str) -> None:
        """Write *text* into the model's log, and warn the first time that it is *about* this."""
        self._say(f"[swapchart] kv: {text}")
        if about not in self._warned:
            self._warned.add(about)
            log.warning("%s: kv: %s", self.name, text)

    def _tell(self, text: str) -> None:
        log.info("%s: kv: %s", self.name, text)
        self._say(f"[swapchart] kv: {text}")


def _client(endpoint: str, terms: Terms) -> SlotClient:
    # Its own limit is for answers that hang after ours, which ends it in good order, was missed.
    limit = terms.settings.hook_timeout_s
    return SlotClient(endpoint, api_key=terms.facts.api_key, timeout_s=limit)


def _default_lora(props: Mapping[str, Any]) -> str:
    settings = props.get("default_generation_settings") or {}
    return SlotClient.lora_of(settings.get("params") or {})


def _ms_since(began: float) -> float:
    return round((time.perf_counter() - began) * 1000, 1)
