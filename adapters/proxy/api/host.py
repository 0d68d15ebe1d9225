"""Routes for the host: samples of its load, its hardware, and its memory pools."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs

import msgspec
from msgspec import structs

from ....runtime import MemoryFailures
from ...system import threads
from ..body.errors import BodyTooLargeError
from ..body.model_name import quoted_name
from ..context import ProxyContext
from ..formatting import rfc3339
from ..monitoring.gpus import Gpu
from ..monitoring.hardware import HardwareProbe
from ..monitoring.host import Sample
from ..query import parse_time
from ..request import Request
from ..responses import ApiError
from .handler import ApiHandler
from .models import known_model
from .schema import host as schema
from .schema.memory import (
    AwayModel,
    ForgottenMemory,
    LearnedMemory,
    MemoryHolder,
    MemoryNotice,
    MemoryPool,
    MemoryState,
    OutOfMemory,
    YieldedPools,
    YieldRequest,
)

_MIB = 1 << 20
_BODY_LIMIT = 1 << 16  # bytes
_LONGEST_S = 365 * 86400.0


@ApiHandler
async def performance(
    proxy: ProxyContext, request: Request
) -> schema.Performance | schema.PerformanceOff:
    """Return the samples of the last hour, or those after ``?after=``."""
    if proxy.options.performance_every_s is None:
        return schema.PerformanceOff()
    text = parse_qs(request.query.decode("latin-1")).get("after", [""])[-1]
    after = 0.0
    if text:
        try:
            after = parse_time(text)
        except (ValueError, OverflowError) as error:
            example = "2026-01-31T12:00:00Z"
            message = f"after: expected a time such as {example}, got {quoted_name(text)}"
            raise ApiError(400, message) from error
    samples = [sample for sample in proxy.accounting.samples.recent if sample.at > after]
    none: list[Any] | None = (
        [] if text else None
    )  # as llama-swap responds where there are no samples
    return schema.Performance(
        sys_stats=[_host_load(sample) for sample in samples] or none,
        gpu_stats=[_gpu_load(s.at, gpu) for s in samples for gpu in s.gpus] or none,
    )


@ApiHandler
async def hardware(proxy: ProxyContext, request: Request) -> schema.Hardware:
    """Return the hardware and the operating system of the host."""
    accounting = proxy.accounting
    if accounting.hardware is None:
        accounting.hardware = await threads.run(HardwareProbe().detect)
    return msgspec.convert(accounting.hardware, schema.Hardware)


def _host_load(sample: Sample) -> schema.HostLoad:
    return schema.HostLoad(
        timestamp=rfc3339(sample.at),
        cpu_util_per_core=list(sample.cores),
        mem_total_mb=sample.memory_total // _MIB,
        mem_used_mb=sample.memory_used // _MIB,
        mem_free_mb=sample.memory_available // _MIB,
        swap_total_mb=sample.swap_total // _MIB,
        swap_used_mb=sample.swap_used // _MIB,
        load_avg_1=sample.load[0],
        load_avg_5=sample.load[1],
        load_avg_15=sample.load[2],
        net_io=[
            schema.NetworkCounters(name=item.name, bytes_recv=item.received, bytes_sent=item.sent)
            for item in sample.interfaces
        ],
    )


def _gpu_load(at: float, gpu: Gpu) -> schema.GpuLoad:
    return schema.GpuLoad(
        timestamp=rfc3339(at),
        id=gpu.index,
        name=gpu.name,
        uuid=gpu.uuid,
        temp_c=gpu.celsius,
        vram_temp_c=gpu.memory_celsius,
        gpu_util_pct=gpu.busy,
        mem_util_pct=gpu.memory_busy,
        mem_used_mb=gpu.used_mib,
        mem_total_mb=gpu.total_mib,
        fan_speed_pct=gpu.fan,
        power_draw_w=gpu.watts,
    )


@ApiHandler
async def memory(proxy: ProxyContext, request: Request) -> MemoryState:
    """Return the memory pools, and what each model holds of them."""
    return proxy.view(request.access).memory(memory_view(proxy))


def memory_view(proxy: ProxyContext) -> MemoryState:
    """Return the memory pools, what each model holds of them, and what was learned."""
    supervisor, now = proxy.supervisor, proxy.now()
    ledger, watch = supervisor.scheduler.memory, supervisor.memory_watch
    if ledger is None or not ledger.pools:
        return MemoryState(
            mode="off", pools=[], models=[], failure="", learned=[], notices=[], away=[],
            failures=[],
        )  # fmt: skip
    pools = []
    for name, pool in ledger.pools.items():
        state = None if watch is None else watch.states.get(name)
        reading = None if state is None else state.reading
        pools.append(
            MemoryPool(
                name=name, capacity=pool.capacity, reserve=pool.reserve, limit=pool.limit,
                used=None if reading is None else reading.used, foreign=pool.foreign,
                others={} if reading is None else dict(reading.others),
                held=ledger.held(name), free=ledger.free(name),
                stale=reading is not None and watch is not None and watch.is_stale(name, now),
                source="" if reading is None else reading.source,
                keep=pool.keep, left_because=pool.left_because,
            )
        )  # fmt: skip
    entries = supervisor.scheduler.services
    models = [
        MemoryHolder(
            model=holder.name, phase=holder.phase, claim=dict(holder.claim),
            seen=dict(holder.seen), source=holder.source, pinned=holder.is_pinned,
            load_s=round(holder.load_s, 3),
            idle_s=0.0 if entries[holder.name].granted else round(max(now - holder.used_at, 0), 3),
        )
        for holder in ledger.holders(now, supervisor.scheduler.limits.min_residency_s)
    ]  # fmt: skip
    learning = ledger.learning
    learned = [
        LearnedMemory(
            model=found.model, pool=found.pool, launch=found.key, claim=found.claim,
            ready=found.ready, highest=found.highest, asleep=found.asleep, runs=found.runs,
            method=found.method,
        )
        for found in learning.footprints.all()
    ]  # fmt: skip
    notices = [
        *([] if watch is None else watch.notices(now)), *learning.notices(),
        *ledger.failures.notices(),
    ]  # fmt: skip
    away = () if supervisor.memory_yielding is None else supervisor.memory_yielding.away()
    return MemoryState(
        mode="auto" if ledger.decides else "observe", pools=pools, models=models,
        failure="" if watch is None else watch.failure, learned=learned,
        notices=[
            MemoryNotice(kind=each.kind, model=each.service, pool=each.pool, text=each.text)
            for each in notices
        ],
        away=[AwayModel(model=name) for name in away],
        failures=_failures(ledger.failures),
    )  # fmt: skip


def _failures(failures: MemoryFailures) -> list[OutOfMemory]:
    return [
        OutOfMemory(
            model=name, count=failures.counts[name], at=rfc3339(failure.at), why=failure.text,
            retried=failure.can_retry,
        )
        for name, failure in sorted(failures.last.items())
    ]  # fmt: skip


def coarse_memory(state: MemoryState) -> MemoryState:
    """Return *state* without what changes all the time, for comparison with another one.

    Amounts are in steps of 1 % of their pool, at most 256 MiB.
    """
    steps = {pool.name: max(min(pool.capacity // 100, 256 * _MIB), 1) for pool in state.pools}

    def coarse(amounts: dict[str, int]) -> dict[str, int]:
        return {pool: amount // steps.get(pool, 1) for pool, amount in amounts.items()}

    return structs.replace(
        state,
        pools=[
            structs.replace(
                pool, others={}, held=pool.held // steps[pool.name],
                used=None if pool.used is None else pool.used // steps[pool.name],
                foreign=pool.foreign // steps[pool.name], free=pool.free // steps[pool.name],
            )
            for pool in state.pools
        ],
        models=[
            structs.replace(
                model, claim=coarse(model.claim), seen=coarse(model.seen), load_s=0.0, idle_s=0.0
            )
            for model in state.models
        ],
    )  # fmt: skip


@ApiHandler
async def yield_memory(proxy: ProxyContext, request: Request) -> YieldedPools:
    """Leave memory pools to other programs, or end that."""
    try:
        wanted = msgspec.json.decode(await request.body(_BODY_LIMIT), type=YieldRequest)
    except BodyTooLargeError as error:
        raise ApiError(413, str(error), headers=[(b"connection", b"close")]) from error
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise ApiError(400, f"expected `pools`, and maybe `seconds` and `keep`: {error}") from error
    ledger, yielding = proxy.supervisor.scheduler.memory, proxy.supervisor.memory_yielding
    known = () if ledger is None else ledger.pools
    if unknown := [name for name in wanted.pools if name not in known]:
        there = ", ".join(known) or "none, since `memory` is off"
        message = f"no such memory pool: {quoted_name(unknown[0])}; there are: {there}"
        raise ApiError(400, message)
    if wanted.keep < 0 or (wanted.seconds is not None and not 0 <= wanted.seconds <= _LONGEST_S):
        raise ApiError(400, "expected `seconds` from 0 to 31536000 or null, and `keep` >= 0")
    if wanted.pools and ledger is not None and not ledger.decides:
        raise ApiError(409, "it has no effect while `memory.mode` is observe; set auto")
    if yielding is None:
        return YieldedPools(pools=[])
    if wanted.seconds == 0:
        yielding.take_back(wanted.pools)
    else:
        yielding.leave(wanted.pools, dict.fromkeys(wanted.pools, wanted.keep), wanted.seconds)
    return YieldedPools(pools=sorted(yielding.by_hand))


@ApiHandler
async def forget_memory(proxy: ProxyContext, request: Request) -> ForgottenMemory:
    """Forget what earlier runs of a model have shown; its next start is estimated or alone."""
    name = known_model(proxy, request, request.path_suffix)
    scheduler = proxy.supervisor.scheduler
    if scheduler.memory is None or name not in scheduler.services:
        return ForgottenMemory(model=name, launches=0)
    launches = scheduler.memory.forget(scheduler.services[name])
    proxy.supervisor.review()
    return ForgottenMemory(model=name, launches=launches)
