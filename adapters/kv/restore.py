"""Restore: fills the slots of a server that has just become healthy."""

from __future__ import annotations

import time
from dataclasses import replace

import anyio

from .backend import KvBackend
from .entry import Entry, by_value
from .files import KvStoreError
from .server import LaunchContext, Server
from .slots import SlotError
from .state import ModelState


class Restore:
    """One restore.

    Args:
        model: State of the model's cache.
        launch: Launch context of the process.
        client: Connection to its server.

    Attributes:
        server: The server; None before it is known, and if nothing of it can be kept.
    """

    def __init__(self, model: ModelState, launch: LaunchContext, client: KvBackend) -> None:
        self._model, self._launch, self._client = model, launch, client
        self.server: Server | None = None
        self._store = model.store

    async def run(self) -> None:
        """Restore the most valuable entries, one into each slot, starting with slot 0.

        A server gives an unrelated prompt the last of its unused slots, so the most valuable entry
        is overwritten last.

        Raises:
            KvStoreError: The manifest cannot be written.
            SlotError: The state of a slot is unknown.
            OSError: The server does not respond.
        """
        model = self._model
        await model.settled()
        server = await model.identify(self._client, self._launch)
        if server is None:
            return
        self.server = server
        model.run.fingerprint = server.key
        entries = by_value(self._store.manifest.entries)
        known = [entry for entry in entries if entry.fingerprint == server.key]
        if model.record(server.key).verdict == "no-op":
            model.warn_once("no-op", "restores have no effect with this server and model; skipped")
            for entry in known:
                model.forget(entry.file)
            await model.commit(is_durable=False)
            return
        if entries and not known:
            facts = self._store.manifest.facts.get(entries[0].fingerprint, {})
            differences = "; ".join(server.differences(facts))
            model.warn_once(server.key, f"saved by another server, so not restored: {differences}")
        try:
            await self._fill(known, server.slots)
        finally:
            # Also after a cancellation. A server that died leaves its entry marked as suspect.
            with anyio.CancelScope(shield=True):
                await model.commit(is_durable=False)

    async def _fill(self, entries: list[Entry], slots: int) -> None:
        number = 0
        for entry in entries:
            if number == slots:
                return
            if await self._is_sound(entry) and await self._restore(number, entry):
                number += 1

    async def _is_sound(self, entry: Entry) -> bool:
        try:
            digest = await self._model.digests.of(entry.file)
            flaw = self._store.flaw(entry)
            flaw = flaw or ("" if digest == entry.sha256 else "its checksum is wrong")
        except KvStoreError as error:
            self._model.warn_once("memory", f"{entry.tokens} tokens stay on the disk: {error}")
            return False
        except OSError as error:
            flaw = str(error)
        if flaw:
            self._model.warn_once(entry.file, f"{entry.tokens} saved tokens are lost: {flaw}")
            self._model.forget(entry.file)
        return not flaw

    async def _restore(self, number: int, entry: Entry) -> bool:
        model, began = self._model, time.perf_counter()
        self._store.update(replace(entry, is_suspect=True))
        await model.commit(is_durable=False)
        try:
            moved = await self._client.restore(number, entry.file)
        except SlotError as error:
            await self._refused(number, entry, str(error))
            return False
        except OSError:
            raise  # the restore may have crashed the server: the entry stays suspect
        except BaseException:
            self._store.update(entry)  # canceled
            raise
        if (moved.tokens, moved.size) != (entry.tokens, entry.size):
            await self._refused(number, entry, f"{moved.tokens} were restored")
            return False
        ms = (time.perf_counter() - began) * 1000
        done = replace(entry, restore_ms=round(ms, 1))
        self._store.update(done)
        model.run.restored[number] = done
        model.record(entry.fingerprint).note_restore(entry.size, ms)
        return True

    async def _refused(self, number: int, entry: Entry, why: str) -> None:
        self._model.forget(entry.file)
        self._model.warn_once("refused", f"{entry.tokens} saved tokens were rejected: {why}")
        await self._client.erase(number)


def prepare(model: ModelState) -> None:
    """Begin to verify the entries that will probably be restored."""
    entries = by_value(model.store.manifest.entries)
    if entries:
        latest = max(entries, key=lambda entry: entry.saved_at).fingerprint
        for entry in entries:
            if entry.fingerprint == latest and not entry.is_suspect:
                model.digests.begin(entry.file)
