"""Metrics of memory: pools, what each model holds of them, and saved prompt caches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from prometheus_client.metrics_core import Metric

from .....runtime import MemoryLedger
from .....runtime.lost_claims import node_of
from ...context import ProxyContext
from .families import Rows, counter, gauge

_PLANS = ("start", "evict", "wait", "refuse")
_POOL = ("node", "pool", "device", "kind")


def memory(proxy: ProxyContext) -> Iterator[Metric]:
    """Yield metrics of the memory pools; none if `memory` is off."""
    ledger = proxy.supervisor.scheduler.memory
    if ledger is None or not ledger.pools:
        return
    labels = {name: _labels(proxy, ledger, name) for name in ledger.pools}
    yield from _pools(proxy, ledger, labels)
    yield from _models(proxy, labels)
    plans = {(kind,): float(ledger.plan_counts[kind]) for kind in _PLANS}
    text = "Plans that were made for the memory of a start, by kind."
    yield counter("swapchart_memory_plans", text, plans, "kind")


def _labels(proxy: ProxyContext, ledger: MemoryLedger, pool: str) -> tuple[str, str, str, str]:
    """Return node, name, device and kind of *pool*; the kind is gpu, ram or empty."""
    node = node_of(pool)
    name = pool.removeprefix(f"{node}/")
    watch = proxy.supervisor.memory_watch
    state = None if watch is None else watch.states.get(pool)
    reading = None if state is None else state.reading
    device = ledger.devices.get(pool)
    found = "" if reading is None else reading.device
    is_gpu = device is not None or (reading is not None and bool(reading.vendor))
    kind = "gpu" if is_gpu or name.startswith("GPU") else "ram" if name == "RAM" else ""
    return node, name, found or ("" if device is None else device.id), kind


def _pools(
    proxy: ProxyContext, ledger: MemoryLedger, labels: Mapping[str, tuple[str, ...]]
) -> Iterator[Metric]:
    pools = [(labels[name], name, pool) for name, pool in ledger.pools.items()]
    families: tuple[tuple[str, str, Rows], ...] = (
        (
            "capacity",
            "Size of each memory pool in bytes.",
            {key: pool.capacity for key, _, pool in pools},
        ),
        (
            "reserve",
            "Bytes of each memory pool that models never get.",
            {key: pool.reserve for key, _, pool in pools},
        ),
        (
            "foreign",
            "Bytes of each memory pool that other programs hold.",
            {key: pool.foreign for key, _, pool in pools},
        ),
        (
            "held",
            "Bytes of each memory pool that models hold: granted or used, whichever is more.",
            {key: ledger.held(name) for key, name, _ in pools},
        ),
        (
            "free",
            "Bytes of each memory pool that are free for models; negative if it is too full.",
            {key: ledger.free(name) for key, name, _ in pools},
        ),
    )
    for name, text, values in families:
        yield gauge(f"swapchart_memory_{name}_bytes", text, values, *_POOL)
    watch = proxy.supervisor.memory_watch
    if watch is None:
        return
    now = proxy.now()
    ages = {
        labels[name]: now - state.read_at
        for name, state in watch.states.items()
        if state.reading is not None and name in labels
    }
    text = "Time in seconds since each memory pool was read."
    yield gauge("swapchart_memory_reading_age_seconds", text, ages, *_POOL)


def _models(proxy: ProxyContext, labels: Mapping[str, tuple[str, ...]]) -> Iterator[Metric]:
    entries = proxy.supervisor.scheduler.services
    claims = {
        (name, *labels[pool]): float(amount)
        for name, entry in entries.items()
        for pool, amount in entry.claim.items()
        if pool in labels
    }
    used = {
        (name, *labels[pool]): float(amount)
        for name, entry in entries.items()
        for pool, amount in entry.seen.items()
        if pool in labels
    }
    text = "Bytes of each memory pool that each model was granted."
    yield gauge("swapchart_model_memory_claimed_bytes", text, claims, "model", *_POOL)
    text = "Bytes of each memory pool that the processes of each model use, by the last reading."
    yield gauge("swapchart_model_memory_used_bytes", text, used, "model", *_POOL)


def kv(proxy: ProxyContext) -> Iterator[Metric]:
    """Yield metrics of saved prompt caches, if a model has one."""
    kv_facts = proxy.details.get("kv")
    known = {} if kv_facts is None else {name: kv_facts(name) for name in proxy.catalog.models}
    facts = {name: detail for name, detail in known.items() if detail and "verdict" in detail}
    if not facts:
        return
    verdicts = {(name, str(detail["verdict"])): 1.0 for name, detail in facts.items()}
    text = "Whether restores help each model: 1 for unknown, works, partial or no-op."
    yield gauge("swapchart_kv_verdict", text, verdicts, "model", "verdict")
    for name, key, text in (
        ("stored_tokens", "saved_tokens", "Tokens of conversations in the store of each model."),
        ("stored_bytes", "saved_bytes", "Bytes of conversations in the store of each model."),
    ):
        yield gauge(f"swapchart_kv_{name}", text, _rows(facts, key), "model")
    for name, key, text in (
        ("saves", "saves", "Slots that were saved."),
        ("checkpoints", "checkpoints", "Slots that were saved while the server was idle."),
        ("restores", "restores", "Slots that were restored."),
        ("failures", "failures", "Saves and restores that were aborted or failed."),
        ("saved_tokens", "saved_tokens_total", "Tokens of the slots that were saved."),
        ("restored_tokens", "restored_tokens_total", "Tokens of the slots that were restored."),
        (
            "reused_tokens",
            "reused_tokens_total",
            "Prompt tokens that the first responses after a restore did not have to process.",
        ),
        ("saved_bytes", "saved_bytes_total", "Bytes of the slots that were saved."),
    ):
        yield counter(f"swapchart_kv_{name}", text, _rows(facts, key), "model")
    libraries = {name: detail for name, detail in facts.items() if "conversations" in detail}
    for name, key, text in (
        ("conversations", "conversations", "Conversations in the library of each model."),
        ("library_bytes", "library_bytes", "Bytes in the library of each model."),
        (
            "library_saved_seconds", "library_saved_s",
            "Prefill time that restores from the library of each model have saved.",
        ),
    ):  # fmt: skip
        if libraries:
            yield gauge(f"swapchart_kv_{name}", text, _rows(libraries, key), "model")


def _rows(facts: Mapping[str, Mapping[str, Any]], key: str) -> Rows:
    return {(name,): float(detail[key]) for name, detail in facts.items()}
