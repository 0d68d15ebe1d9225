"""Save: writes the slots of a server that is about to stop, and chooses the entries to keep."""

from __future__ import annotations

import time
from array import array
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace

from ..system import threads
from .backend import KvBackend
from .effectiveness import Effectiveness
from .entry import Entry, by_value, choose
from .files import KvStoreError
from .run_statistics import Saved
from .server import LaunchContext, Server
from .slots import Slot, SlotError
from .state import ModelState
from .token_file import read_tokens


class Save:
    """One save.

    Args:
        model: State of the model's cache.
        launch: Launch context of the process.
        client: Connection to its server.

    Attributes:
        server: The server; None before it is known.
        saved: Entries that the server has written so far, without checksums.
        run: The run that this save ends.
        stall_ms: Time for which the last save has stalled the server.
        is_checkpoint: The run goes on, so entries that it has not continued do not lose value.
    """

    def __init__(self, model: ModelState, launch: LaunchContext, client: KvBackend) -> None:
        self._model, self._launch, self._client = model, launch, client
        self._files = model.store.files
        self.server: Server | None = None
        self.saved: list[Entry] = []
        self.run = model.run
        self.stall_ms = 0.0
        self.is_checkpoint = False

    async def ask(self) -> None:
        """Let the server write every slot that is worth it, largest first.

        A slot that the server refuses to save, as some builds do if it holds images, is skipped.

        Raises:
            KvStoreError: The disk is full or read-only.
            SlotError: The server does not report the contents of its slots.
            OSError: The server does not respond.
        """
        model = self._model
        await model.settled()
        server = await model.identify(self._client, self._launch)
        if server is None or server.is_asleep:
            return
        self.run.is_proven = True
        if model.record(server.key).verdict == "no-op":
            return
        slots = await self._client.slots()
        used = [slot for slot in slots[: server.slots] if slot.was_used]
        if used:
            self.server = server
        for slot in sorted(used, key=lambda slot: -(slot.tokens or 0)):
            if slot.lora != server.lora:  # its cache was computed with other adapters
                continue
            try:
                await self.save_slot(slot, server.key)
            except SlotError as error:
                model.count_failure()
                model.warn_once(f"refused {error.status}", f"not saved: {error}")

    async def save_slot(self, slot: Slot, key: str) -> None:
        """Let the server write *slot*, if it is worth it, under fingerprint *key*.

        Raises:
            KvStoreError: The disk is full or read-only.
            SlotError: The server refuses.
            OSError: The server does not respond.
        """
        record = self._model.record(key)
        if slot.tokens is not None and not self._is_worth(slot.tokens, record):
            return
        expected = record.expected_bytes(slot.tokens or 0)
        limit = self._launch.settings.max_bytes
        if limit is not None and expected > limit:
            what = f"{slot.tokens} tokens are not saved: they need more than maxBytes ({limit})"
            self._model.warn_once("maxBytes", what)
            return
        began = time.perf_counter()
        name = await threads.run(self._files.reserve, expected)
        is_good = False
        try:
            moved = await self._client.save(slot.number, name)
            self.stall_ms = moved.stall_ms
            self._check_size(name, moved.size)
            is_good = self._is_worth(moved.tokens, record)
        finally:
            if not is_good:
                self._files.remove(name)
        if is_good:
            ms = (time.perf_counter() - began) * 1000
            record.note_save(moved.tokens, moved.size, ms)
            self._model.digests.begin(name)
            self.saved.append(
                Entry(
                    file=name, fingerprint=key, tokens=moved.tokens, size=moved.size, sha256="",
                    saved_at=self._model.clock(), save_ms=round(ms, 1),
                )
            )  # fmt: skip

    def _is_worth(self, tokens: int, record: Effectiveness) -> bool:
        return 0 < tokens >= self._launch.settings.min_tokens and record.pays(tokens)

    def _check_size(self, name: str, written: int) -> None:
        found = self._files.size(name)
        if found == 0 < written:
            raise KvStoreError(
                f"the server saves to another folder: expected {self._files.path(name)}; "
                "if its folder has another path on this host, configure it as kv.dir"
            )
        if found != written:
            raise KvStoreError(f"{found} of {written} bytes were written: is the disk full?")

    async def keep(self) -> None:
        """Choose the entries to keep, write the manifest, and remove the rest, in the background.

        Until the manifest is written, the old one is valid and its files exist.

        Raises:
            KvStoreError: The disk is full or read-only; the old entries stay.
        """
        if self.server is None:
            return
        store, key = self._model.store, self.server.key
        before = list(store.manifest.entries)
        try:
            new = [await self._checked(entry) for entry in self.saved]
            old = [await self._with_tokens(entry) for entry in before if entry.fingerprint == key]
            self.run.look_back(old, new, self._model.record(key))
            choice = choose(old, new, self.server.slots, is_end=not self.is_checkpoint)
            others = by_value(entry for entry in before if entry.fingerprint != key)
            store.manifest.entries = [*choice.kept, *others[: self.server.slots]]
            store.manifest.facts[key] = dict(self.server.facts)
            settings = self._launch.settings
            excess = store.over_quota(settings.max_bytes, settings.max_age_s, self._model.clock())
            store.manifest.entries = [e for e in store.manifest.entries if e not in excess]
            await self._model.commit()
        except BaseException:
            store.manifest.entries = before
            self._drop(self.saved)
            raise
        kept = {entry.file for entry in store.manifest.entries}
        self._drop(entry for entry in [*before, *self.saved] if entry.file not in kept)

    def _drop(self, entries: Iterable[Entry]) -> None:
        names = [entry.file for entry in entries]
        self._files.remove(*names)
        self._model.digests.forget(*names)

    async def _checked(self, entry: Entry) -> Saved:
        try:
            digest = await self._model.digests.of(entry.file)
        except OSError as error:
            raise KvStoreError(f"{entry.file} cannot be read: {error}") from error
        await threads.run(self._files.persist, entry.file)
        if self.is_checkpoint:  # the file of a stop is only worth it until the next start
            await threads.run(self._files.sync, entry.file)
        return await self._with_tokens(replace(entry, sha256=digest))

    async def _with_tokens(self, entry: Entry) -> Saved:
        tokens: array[int] | None = None
        with suppress(OSError):
            path = self._files.path(entry.file)
            tokens = await threads.run(read_tokens, path, entry.tokens)
        return entry, tokens
