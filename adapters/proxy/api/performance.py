"""Samples of the machine, an hour of them, for ``/api/performance`` and ``/metrics``."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs

from ...http1.asgi_types import Send
from ..body.model_name import shown_name
from ..context import ProxyContext
from ..formatting import shown_time
from ..monitoring.gpus import Gpu
from ..monitoring.host import Sample
from ..request import Request
from ..responses import send_error, send_json
from .query import parse_time

_MIB = 1 << 20


async def performance(proxy: ProxyContext, request: Request, send: Send) -> None:
    """Tell the samples, those after ``?after=`` only if that is given."""
    if proxy.options.performance_every_s is None:
        await send_json(send, {"enabled": False}, 503)
        return
    given = parse_qs(request.query.decode("latin-1")).get("after", [""])[-1]
    after = 0.0
    if given:
        try:
            after = parse_time(given)
        except (ValueError, OverflowError):
            shown = shown_name(given)
            message = f"after: expected a time such as 2026-01-31T12:00:00Z, got {shown}"
            await send_error(request, send, 400, message)
            return
    samples = [sample for sample in proxy.accounting.samples.recent if sample.at > after]
    value = {
        "enabled": True,
        "sys_stats": [_system(sample) for sample in samples] or None,
        "gpu_stats": [_gpu(s.at, gpu) for s in samples for gpu in s.gpus] or None,
    }
    await send_json(send, value)


def _system(sample: Sample) -> dict[str, Any]:
    return {
        "timestamp": shown_time(sample.at),
        "cpu_util_per_core": list(sample.cores),
        "mem_total_mb": sample.memory_total // _MIB,
        "mem_used_mb": sample.memory_used // _MIB,
        "mem_free_mb": sample.memory_available // _MIB,
        "swap_total_mb": sample.swap_total // _MIB,
        "swap_used_mb": sample.swap_used // _MIB,
        "load_avg_1": sample.load[0],
        "load_avg_5": sample.load[1],
        "load_avg_15": sample.load[2],
        "net_io": [
            {"name": link.name, "bytes_recv": link.received, "bytes_sent": link.sent}
            for link in sample.interfaces
        ],
    }


def _gpu(at: float, gpu: Gpu) -> dict[str, Any]:
    return {
        "timestamp": shown_time(at),
        "id": gpu.index,
        "name": gpu.name,
        "uuid": gpu.uuid,
        "temp_c": gpu.celsius,
        "vram_temp_c": gpu.memory_celsius,
        "gpu_util_pct": gpu.busy,
        "mem_util_pct": gpu.memory_busy,
        "mem_used_mb": gpu.used_mib,
        "mem_total_mb": gpu.total_mib,
        "fan_speed_pct": gpu.fan,
        "power_draw_w": gpu.watts,
    }
