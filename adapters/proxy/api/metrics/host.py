"""Metrics of the host, under llama-swap's names.

Source: llama-swap's ``/metrics``; names, labels and units are exactly its own.
"""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.metrics_core import Metric

from ...monitoring.host import Sample
from .families import Rows, counter, gauge


def host(sample: Sample) -> Iterator[Metric]:
    """Yield the metrics of *sample*."""
    cores = {(str(core),): busy for core, busy in enumerate(sample.cores)}
    yield _gauge(
        "cpu_util_percent", "Utilization of each core since the last sample, 0 to 100.", cores,
        "core",
    )  # fmt: skip
    for name, text, value in (
        ("memory_total", "Size of the main memory in bytes.", sample.memory_total),
        (
            "memory_used",
            "Main memory in bytes that programs could not get at once.",
            sample.memory_used,
        ),
        (
            "memory_free",
            "Main memory in bytes that programs could get without swapping.",
            sample.memory_available,
        ),
        ("swap_total", "Size of the swap space in bytes.", sample.swap_total),
        ("swap_used", "Swap space in use, in bytes.", sample.swap_used),
    ):
        yield _gauge(f"{name}_bytes", text, {(): value})
    load = {(name,): value for name, value in zip(("1m", "5m", "15m"), sample.load, strict=True)}
    yield _gauge(
        "load_average", "Load average of the host over 1, 5 and 15 minutes.", load, "interval"
    )
    transferred: dict[tuple[str, ...], float] = {}
    for item in sample.interfaces:
        transferred[item.name, "recv"], transferred[item.name, "sent"] = item.received, item.sent
    text = "Bytes that each network interface received and sent since it was created."
    yield counter("llamaswap_network_bytes", text, transferred, "interface", "direction")
    yield from _gpus(sample)


def _gauge(name: str, text: str, values: Rows, *labels: str) -> Metric:
    return gauge(f"llamaswap_{name}", text, values, *labels)


def _gpus(sample: Sample) -> Iterator[Metric]:
    gpus = sample.gpus
    for name, text, values in (
        (
            "temperature_celsius",
            "Temperature of each GPU's chip in degrees Celsius.",
            [gpu.celsius for gpu in gpus],
        ),
        (
            "vram_temperature_celsius",
            "Temperature of each GPU's memory in degrees Celsius.",
            [gpu.memory_celsius for gpu in gpus],
        ),
        (
            "util_percent",
            "Utilization of each GPU's chip, 0 to 100.",
            [gpu.busy for gpu in gpus],
        ),
        (
            "memory_util_percent",
            "Share of time in which each GPU's memory was read or written, 0 to 100.",
            [gpu.memory_busy for gpu in gpus],
        ),
        (
            "memory_used_bytes",
            "Memory of each GPU in use by all programs, in bytes.",
            [_bytes(gpu.used_mib) for gpu in gpus],
        ),
        (
            "memory_total_bytes",
            "Size of each GPU's memory in bytes.",
            [_bytes(gpu.total_mib) for gpu in gpus],
        ),
        (
            "fan_speed_percent",
            "Speed of each GPU's fan, 0 to 100 of its maximum.",
            [gpu.fan for gpu in gpus],
        ),
        ("power_draw_watts", "Power draw of each GPU in watts.", [gpu.watts for gpu in gpus]),
    ):
        known = {
            (str(gpu.index), gpu.name, gpu.uuid): value
            for gpu, value in zip(gpus, values, strict=True)
            if value is not None
        }
        if known:
            yield _gauge(f"gpu_{name}", text, known, "id", "name", "uuid")


def _bytes(mib: float | None) -> float | None:
    return None if mib is None else mib * (1 << 20)
