"""Connects the timeline of the proxy with its store, the journal, the caches and the memory."""

from __future__ import annotations

from contextlib import suppress

from ....runtime.fence import kept
from ...kv.manager import KvManager
from ...proxy.context import ProxyContext
from ...store import StoreError
from ...store.journal import Journal, run_of
from ...store.timeline import TimelineStore
from .memory_samples import MemorySamples


def keep_timeline(
    context: ProxyContext, store: TimelineStore, journal: Journal, kv_manager: KvManager
) -> None:
    """Let the proxy show the timeline in *store*, and keep samples of memory and restores there."""
    supervisor = context.supervisor
    context.timeline, context.swap_history = store, journal.swap
    context.run = run_of(store.instance)

    def note_restored(model: str, tokens: int, ms: float, saved_ms: float | None) -> None:
        swap = supervisor.swaps.of(model)
        store.put_restored(model, tokens, ms, saved_ms, "" if swap is None else swap.id)

    kv_manager.on_restored = note_restored
    context.spawn(_seed_load_times(context, journal))
    context.spawn(kept(MemorySamples(supervisor, context.accounting.samples, store).run))


async def _seed_load_times(context: ProxyContext, journal: Journal) -> None:
    """Let models that have not been started yet have the load time of earlier runs.

    The query took 145 ms for 100,000 transitions on two busy cores, in the thread of the database.
    """
    with suppress(StoreError):  # the database has logged it
        services = context.supervisor.scheduler.services
        for name, seconds in (await journal.load_times()).items():
            if name in services:
                services[name].earlier_load_s = seconds
        if context.change_publisher is not None:
            context.change_publisher.models_changed()
