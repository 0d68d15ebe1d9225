"""Saves and restores the slots of one model, around the life of its process.

Everything here may fail, and the answer is always the same: say why, once, and let the server
start plainly. What was saved before is given up only when something better is in its place.
"""

from __future__ import annotations

import logging
import time
from array import array
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import anyio
from anyio import to_thread

from ...runtime import HookContext
from .entry import Entry, by_value, choose
from .facts import ServerFacts
from .proof import Record, Seen
from .slots import Slot, SlotClient, SlotError
from .store import KvStoreError, ModelStore
from .tokens import common_prefix, read_tokens

log = logging.getLogger(__name__)

_WATCHED_ANSWERS = 16
_CONTINUED = 0.9


@dataclass(frozen=True, slots=True, kw_only=True)
class KvRules:
    """What is wanted for one model.

    Attributes:
        min_tokens: Smaller slots are not saved; >= 0.
        timeout_s: Budget of one save or restore of all slots; seconds > 0.
        allows_swa: Restore models with a sliding window, if they run with ``--swa-full``.
    """

    min_tokens: int = 256
    timeout_s: float = 10.0
    allows_swa: bool = False


@dataclass(slots=True)
class _Run:
    """What happened since the process was started or woke.

    Attributes:
        restored: Slot number -> entry that is in it.
        is_proven: An answer came since the restore, or a save was made: it did not crash of it.
        best_cached: The largest number of reused tokens in an answer since the restore.
        watched: How many answers were looked at.
    """

    fingerprint: str = ""
    restored: dict[int, Entry] = field(default_factory=dict)
    is_proven: bool = False
    best_cached: int = 0
    watched: int = 0
    counted: bool = False


class ModelKv:
    """The continuity of one model.

    Args:
        name: Of the model.
        store: Its files; opened.
        facts: Where its server's identity is asked for.
        rules: What is wanted.
        say: Takes a line for the model's log.
        clock: Wall clock; seconds since 1970.
    """

    def __init__(
        self, name: str, store: ModelStore, facts: ServerFacts, rules: KvRules,
        say: Callable[[str], None], clock: Callable[[], float] = time.time,
    ) -> None:  # fmt: skip
        self.name, self.store, self.rules = name, store, rules
        self._facts, self._say, self._clock = facts, say, clock
        self._run = _Run()
        self._records: dict[str, Record] = {}
        self._warned: set[str] = set()
        self._totals = {"saves": 0, "restores": 0, "failures": 0, "bytes_saved": 0}
        self._last: dict[str, float | None] = {"last_save_ms": None, "last_restore_ms": None}
        for key, value in store.manifest.learned.items():
            self._records[key] = Record.load(value)

    # ---- hooks
    async def restore(self, context: HookContext) -> None:
        """Fill the slots of a server that has just become healthy, the most valuable first."""
        began = time.perf_counter()
        crashed = self._suspects_of_last_run()
        self._run = _Run()
        if crashed:
            self.store.update(*(replace(entry, is_suspect=True) for entry in crashed))
        with anyio.move_on_after(self.rules.timeout_s) as scope:
            try:
                await self._restore(context)
            except (KvStoreError, SlotError, OSError) as error:
                self._complain("restore", f"not restored: {error}")
        if scope.cancelled_caught:
            self._complain("late", f"restoring took more than {self.rules.timeout_s:g} s: cut")
        if self._run.restored:
            ms = (time.perf_counter() - began) * 1000
            self._last["last_restore_ms"] = ms
            tokens = [entry.tokens for entry in self._run.restored.values()]
            self._tell(f"restored {sum(tokens)} tokens in {len(tokens)} slots in {ms:.0f} ms")

    async def save(self, context: HookContext) -> None:
        """Save the slots of a server that is about to stop or sleep."""
        if context.after_healthy == "interrupted":
            return  # it has served nothing: whatever is in its slots is in the store already
        began = time.perf_counter()
        with anyio.move_on_after(self.rules.timeout_s) as scope:
            try:
                tokens = await self._save(context)
            except (KvStoreError, SlotError, OSError) as error:
                self._totals["failures"] += 1
                self._complain("save", f"not saved: {error}")
                return
        if scope.cancelled_caught:
            self._totals["failures"] += 1
            self._complain("slow", f"saving took more than {self.rules.timeout_s:g} s: cut")
        elif tokens:
            ms = (time.perf_counter() - began) * 1000
            self._last["last_save_ms"] = ms
            self._tell(f"saved {tokens} tokens in {ms:.0f} ms")

    def note(self, seen: Seen) -> None:
        """Take what an answer tells; cheap, and only as often as it can teach something."""
        run = self._run
        run.watched += 1
        run.is_proven = True
        run.best_cached = max(run.best_cached, seen.cached)
        record = self._record(run.fingerprint)
        record.note_answer(seen)
        if run.restored and not run.counted:
            largest = max(entry.tokens for entry in run.restored.values())
            fitting = [e.tokens for e in run.restored.values() if e.tokens <= 2 * seen.cached]
            run.counted = record.note_reuse(max(fitting, default=largest), seen.cached)

    @property
    def is_watching(self) -> bool:
        """Tell whether `note` still learns from answers of this run."""
        return bool(self._run.fingerprint) and self._run.watched < _WATCHED_ANSWERS

    def facts(self) -> dict[str, Any]:
        """Return what can be shown: verdict, sizes, times and counts."""
        entries = self.store.manifest.entries
        return {
            "verdict": self._record(self._run.fingerprint).verdict,
            "saved_tokens": sum(entry.tokens for entry in entries),
            "saved_bytes": sum(entry.size for entry in entries),
            **self._last,
            **self._totals,
        }

    # ---- restoring
    def _suspects_of_last_run(self) -> list[Entry]:
        run = self._run
        return [] if run.is_proven else list(run.restored.values())

    async def _restore(self, context: HookContext) -> None:
        async with self._client(context) as client:
            seen = await self._identify(client, context)
            if seen is None:
                return
            slots, key = seen
            self._run.fingerprint = key
            if self._record(key).verdict == "no-op":
                self._complain("no-op", "restores do nothing with this server and model: left out")
                return
            entries = [e for e in by_value(self.store.manifest.entries) if e.fingerprint == key]
            entries = await self._sound(entries[:slots])
            if not entries:
                self._explain_mismatch(key)
                return
            self.store.update(*(replace(entry, is_suspect=True) for entry in entries))
            await self._commit(is_durable=False)
            try:
                for number, entry in enumerate(entries):
                    await self._restore_one(client, number, entry)
            finally:
                # A server that died has broken the connection: its mark stays.
                await self._commit(is_durable=False)

    async def _sound(self, entries: list[Entry]) -> list[Entry]:
        sound = []
        for entry in entries:
            flaw = await to_thread.run_sync(self.store.flaw, entry)
            if flaw:
                self._complain(entry.file, f"{entry.file} ({entry.tokens} tokens) left out: {flaw}")
                self.store.forget(entry.file)
            else:
                sound.append(entry)
        return sound

    async def _restore_one(self, client: SlotClient, number: int, entry: Entry) -> None:
        began = time.perf_counter()
        cleared = replace(entry, is_suspect=False)
        try:
            moved = await client.restore(number, entry.file)
        except SlotError as error:
            self.store.forget(entry.file)
            await client.erase(number)
            self._complain("refused", f"{entry.tokens} tokens were refused: {error}")
            return
        except BaseException as error:
            if not isinstance(error, OSError):
                self.store.update(cleared)  # we were cut short: the file is not to blame
            raise
        if (moved.tokens, moved.size) != (entry.tokens, entry.size):
            self.store.forget(entry.file)
            await client.erase(number)
            self._complain("short", f"{moved.tokens} of {entry.tokens} tokens came back: erased")
            return
        ms = (time.perf_counter() - began) * 1000
        self._record(entry.fingerprint).note_restore(entry.size, ms)
        self._totals["restores"] += 1
        cleared = replace(cleared, restore_ms=round(ms, 1))
        self.store.update(cleared)
        self._run.restored[number] = cleared

    def _explain_mismatch(self, key: str) -> None:
        manifest = self.store.manifest
        others = [entry for entry in by_value(manifest.entries) if entry.fingerprint != key]
        if not others:
            return
        facts = manifest.facts.get(others[0].fingerprint, {})
        found = self._facts.last.differences(facts) if self._facts.last else []
        self._complain(key, f"saved with other settings, so not restored: {'; '.join(found)}")

    # ---- saving
    async def _save(self, context: HookContext) -> int:
        async with self._client(context) as client:
            seen = await self._identify(client, context)
            if seen is None:
                return 0
            count, key = seen
            self._run.is_proven = True
            record = self._record(key)
            if record.verdict == "no-op":
                return 0
            slots = await client.slots()
            used = [slot for slot in slots[:count] if slot.was_used]
            if not used:
                return 0
            new: list[tuple[Entry, array[int] | None]] = []
            for slot in sorted(used, key=lambda slot: -(slot.tokens or 0)):
                saved = await self._save_one(client, slot, key)
                if saved is not None:
                    new.append(saved)
            await self._keep(key, count, new)
            return sum(entry.tokens for entry, _ in new)

    async def _save_one(
        self, client: SlotClient, slot: Slot, key: str
    ) -> tuple[Entry, array[int] | None] | None:
        record = self._record(key)
        if slot.tokens is not None and not self._is_worth(slot.tokens, record):
            return None
        began = time.perf_counter()
        name = self.store.reserve(record.expected_bytes(slot.tokens or 0))
        is_good = False
        try:
            moved = await client.save(slot.number, name)
            size = self.store.size(name)
            if size == 0 and moved.size:
                raise KvStoreError(
                    f"the server saves where we do not see it: expected {self.store.path(name)}; "
                    "say kv.dir if its folder has another name here"
                )
            if moved.size != size:
                raise KvStoreError(f"the server wrote {size} of {moved.size} bytes: disk full?")
            if not self._is_worth(moved.tokens, record):
                return None
            digest = await to_thread.run_sync(self.store.digest, name)
            ms = (time.perf_counter() - began) * 1000
            record.note_save(moved.tokens, size, ms)
            tokens = await to_thread.run_sync(read_tokens, self.store.path(name), moved.tokens)
            is_good = True
        finally:
            if not is_good:
                self.store.discard(name)
        self._totals["saves"] += 1
        self._totals["bytes_saved"] += size
        entry = Entry(
            file=name, fingerprint=key, tokens=moved.tokens, size=size, sha256=digest,
            saved_at=self._clock(), save_ms=round(ms, 1),
        )  # fmt: skip
        return entry, tokens

    def _is_worth(self, tokens: int, record: Record) -> bool:
        return 0 < tokens >= self.rules.min_tokens and record.pays(tokens)

    async def _keep(self, key: str, count: int, new: list[tuple[Entry, array[int] | None]]) -> None:
        manifest = self.store.manifest
        before = list(manifest.entries)
        old = []
        for entry in before:
            if entry.fingerprint == key:
                tokens = None
                with suppress(OSError):
                    path = self.store.path(entry.file)
                    tokens = await to_thread.run_sync(read_tokens, path, entry.tokens)
                old.append((entry, tokens))
        self._look_for_failures(old, new)
        choice = choose(old, new, count)
        foreign = by_value(entry for entry in before if entry.fingerprint != key)[:count]
        manifest.entries = [*choice.kept, *foreign]
        if self._facts.last is not None:
            manifest.facts[key] = dict(self._facts.last.facts)
        try:
            await self._commit()
        except KvStoreError:
            manifest.entries = before
            self.store.discard(*(entry.file for entry, _ in new))
            raise
        self.store.discard(*(entry.file for entry in [*choice.dropped, *before]))
        if self.store.enforce_quota(self._clock()):
            await self._commit()

    def _look_for_failures(
        self, old: list[tuple[Entry, array[int] | None]],
        new: list[tuple[Entry, array[int] | None]],
    ) -> None:  # fmt: skip
        """Count a conversation that went on where it was restored, and was read anew."""
        run = self._run
        files = {entry.file for entry in run.restored.values()}
        if run.counted or not run.watched:
            return
        for entry, tokens in old:
            if entry.file not in files or tokens is None:
                continue
            shared = max(
                (common_prefix(tokens, after) for _, after in new if after is not None), default=0
            )
            if shared >= _CONTINUED * entry.tokens:
                self._record(run.fingerprint).failures += 1
                run.counted = True
                return

    # ---- both
    def _client(self, context: HookContext) -> SlotClient:
        return SlotClient(
            context.endpoint, api_key=self._facts.api_key, timeout_s=self.rules.timeout_s
        )

    async def _identify(self, client: SlotClient, context: HookContext) -> tuple[int, str] | None:
        """Return (number of slots, fingerprint key), or None when nothing can be kept."""
        props = await client.props()
        if props is None:
            self._complain("foreign", "no /props of a llama-server here: nothing is kept")
            return None
        adapters = await client.adapters()
        problem = await to_thread.run_sync(
            self._facts.learn, props, adapters, self.rules.allows_swa
        )
        if problem or self._facts.last is None:
            self._complain(problem, f"nothing is kept: {problem}")
            return None
        return int(props["total_slots"]), self._facts.last.key

    def _record(self, key: str) -> Record:
        record = self._records.get(key)
        if record is None:
            record = self._records[key] = Record()
        return record

    async def _commit(self, *, is_durable: bool = True) -> None:
        known = {entry.fingerprint for entry in self.store.manifest.entries}
        known.add(self._run.fingerprint)
        self.store.manifest.learned = {
            key: asdict(record) for key, record in self._records.items() if key in known
        }
        await to_thread.run_sync(lambda: self.store.commit(is_durable=is_durable))

    def _tell(self, text: str) -> None:
        log.info("%s: kv: %s", self.name, text)
        self._say(f"[swapchart] kv: {text}")

    def _complain(self, about: str, text: str) -> None:
        self._say(f"[swapchart] kv: {text}")
        if about not in self._warned:
            self._warned.add(about)
            log.warning("%s: kv: %s", self.name, text)
