"""Memory watch: keeps a memory ledger in line with readings of the machine.

A meter that fails, hangs or is missing never delays a request: decisions are made from the last
reading and the claims.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

import anyio

from ..dataclass import dataclass
from .memory import Holder, Notice, size
from .memory.readings import foreign, impossible, relief, shared
from .memory_learning import Sight
from .memory_ledger import MemoryLedger
from .memory_settling import MemorySettling
from .ports import MemoryMeter, PoolReading
from .scheduler import Scheduler
from .scheduling import ServiceEntry
from .service_table import ServiceTable

log = logging.getLogger(__name__)

_MOVING_S, _CALM_S = 0.25, 5.0  # between readings while services start or stop, and else
_WAITING_S = 1.0  # while requests wait: other programs may give memory back
_LEAST_S = 0.05  # between two readings, however often services change
_SLOW_MOVING_S = 1.0  # longest pause while services start or stop
_SHARE = 20  # pause between readings as a multiple of the time that one takes: 5 % of a core
_STALE_S = 15.0
_PRESSURE_S = 5.0
_GAP_S = 30.0  # after a longer gap the machine was suspended, so the reading is not a quiet one


class MemoryHost(Protocol):
    """Interface of the supervisor that a memory watch needs."""

    scheduler: Scheduler

    def review(self) -> None:
        """Decide again on waiting requests."""
        ...


@dataclass(slots=True, kw_only=True)
class PoolState:
    """State of one pool besides its sum.

    Attributes:
        reading: The last reading, or None.
        read_at: Time of that reading in seconds.
        quiet_foreign: Bytes of other programs in the last quiet moment.
        full_since: Time since which more is held than the pool has, or None.
        has_warned: That was logged.
        impossible: Why the last reading was ignored, in words; empty if it was not.
    """

    reading: PoolReading | None = None
    read_at: float = 0.0
    quiet_foreign: int = 0
    full_since: float | None = None
    has_warned: bool = False
    impossible: str = ""


class MemoryWatch:
    """Reads the pools of a ledger regularly.

    Args:
        host: The supervisor.
        services: Its services.
        ledger: Its claims.
        meter: Reads the machine.

    Attributes:
        states: Pool -> its last reading.
        failure: Why the last reading failed; empty if it did not.
    """

    def __init__(
        self, host: MemoryHost, services: ServiceTable, ledger: MemoryLedger, meter: MemoryMeter
    ) -> None:
        self._host, self._services, self._ledger, self._meter = host, services, ledger, meter
        self.states = {name: PoolState() for name in ledger.pools}
        self.failure = ""
        self._has_changed = anyio.Event()
        self._has_warned = False
        self._evicted_at: dict[str, float] = {}
        self._settling = MemorySettling()
        self._settling_since: dict[str, float] = {}
        self._was_read = anyio.Event()

    async def run(self) -> None:
        """Read until canceled: often while services start or stop or requests wait, else calmly."""
        while True:
            self._has_changed = anyio.Event()
            if self._ledger.pools:
                began = anyio.current_time()
                await self.read()
                took_s = anyio.current_time() - began
                longest_s = max(self._pause_s(), _SLOW_MOVING_S)
                await anyio.sleep(min(max(_LEAST_S, _SHARE * took_s), longest_s))
            with anyio.move_on_after(self._pause_s()):
                await self._has_changed.wait()

    def _pause_s(self) -> float:
        if not self._ledger.pools:
            return math.inf
        if self._is_moving():
            return _MOVING_S
        return _WAITING_S if self._host.scheduler.queue else _CALM_S

    def notice(self) -> None:
        """Read again soon, since a service has begun to start or stop, or a request to wait."""
        self._has_changed.set()

    def is_stale(self, pool: str, now: float) -> bool:
        """Return True if the last reading of *pool* is too old to rely on."""
        state = self.states.get(pool)
        return state is not None and now > state.read_at + _STALE_S

    def notices(self, now: float) -> list[Notice]:
        """Return what is wrong with the readings, and which pools are too full."""
        if self.failure:
            text = f"memory cannot be read ({self.failure}): the last reading and the claims count"
            found = [Notice(kind="reading", text=text)]
        else:
            found = [
                Notice(
                    kind="reading", pool=name,
                    text=f"{name} was not read for more than {_STALE_S:g} s: its last reading and "
                    "the claims count",
                )
                for name in self._ledger.pools
                if self.is_stale(name, now) and self.states[name].reading is not None
            ]  # fmt: skip
        found += [
            Notice(kind="pressure", pool=name, text=self._pressure_in_words(name))
            for name, state in self.states.items()
            if state.has_warned and name in self._ledger.pools
        ]
        return found

    def _pressure_in_words(self, pool: str) -> str:
        missing = size(self._ledger.excess(pool))
        return f"pool {pool} is too full: {missing} more than it has are held"

    async def read(self) -> None:
        """Take one reading, and act on it."""
        pids = self._pids()
        wanted = {pid for group in pids.values() for pid in group}.union(self._settling.pids())
        try:
            readings = await self._meter.read(wanted)
        except OSError as error:
            self._note_failure(str(error) or type(error).__name__)
        else:
            if self.failure:
                log.info("memory is read again")
            self.failure, self._has_warned = "", False
            self._apply(readings, pids, anyio.current_time())
        finally:
            self._was_read.set()
            self._was_read = anyio.Event()

    # ---- settling
    def has_to_settle(self, service: str, incarnation: int) -> bool:
        """Return True if memory of *service*, which has ended, may have to come back."""
        return self._ledger.decides and bool(self._missing(service, incarnation, -math.inf))

    async def settle(self, service: str, incarnation: int) -> None:
        """Wait until the memory of *service* has come back; not for pools that cannot be read."""
        since = self._settling_since[service] = anyio.current_time()
        while self._ledger.pools and not self.failure:
            was_read = self._was_read
            self.notice()
            await was_read.wait()
            if not self._missing(service, incarnation, since):
                return

    def conclude(self, service: str, incarnation: int) -> dict[str, int]:
        """End the wait for the memory of *service*; what is missing counts as foreign.

        Returns:
            Pool -> bytes that have not come back.
        """
        since = self._settling_since.pop(service, anyio.current_time())
        missing = self._missing(service, incarnation, since)  # not by readings of before its end
        self._settling.forget(service)
        for pool, amount in missing.items():
            self._ledger.add_foreign(pool, amount)
            self.states[pool].quiet_foreign += amount
        return missing

    def _missing(self, service: str, incarnation: int, since: float) -> dict[str, int]:
        """Return the bytes by pool that are missing in readings after *since*."""
        readings = {
            name: state.reading
            for name, state in self.states.items()
            if state.reading is not None and state.read_at >= since and name in self._ledger.pools
        }
        return self._settling.missing(service, incarnation, readings, self._pids())

    def _pids(self) -> dict[str, frozenset[int]]:
        """Return the processes of each running service with a need."""
        entries, found = self._host.scheduler.services, {}
        for name, lifecycle in self._services.lifecycles.items():
            entry = entries.get(name)
            if entry is not None and entry.need is not None and lifecycle.process is not None:
                found[name] = frozenset(lifecycle.process.pids())
        return found

    def _note_failure(self, why: str) -> None:
        self.failure = why
        now = anyio.current_time()
        if not self._has_warned and any(self.is_stale(name, now) for name in self.states):
            self._has_warned = True
            log.warning(
                "memory could not be read for %g s (%s): decisions use claims and the last reading",
                _STALE_S, why,
            )  # fmt: skip

    # ---- one reading
    def _apply(
        self, readings: Sequence[PoolReading], pids: Mapping[str, frozenset[int]], now: float
    ) -> None:
        ledger = self._ledger
        before = {name: ledger.free(name) for name in ledger.pools}
        for reading in readings:
            name = ledger.name_of(reading)
            if name in ledger.pools and self._is_possible(name, reading):
                self._note_seen(name, reading, pids)
                self._note_pool(name, reading, pids, now)
                self._note_held(name, reading, pids)
                self._learn(name, reading, pids, now)
        ledger.learning.end_others(pids)
        self._replace_guesses({ledger.name_of(reading) for reading in readings}, now)
        if any(ledger.free(name) != free for name, free in before.items()):
            self._host.review()

    def _is_possible(self, name: str, reading: PoolReading) -> bool:
        """Return False if the driver lies: the last reading counts until it does no longer."""
        state = self.states.setdefault(name, PoolState())
        before = state.reading if reading.device else None
        why = impossible(
            reading.used, reading.capacity, 0 if before is None else before.capacity,
            (reading.processes or {}).values(),
        )  # fmt: skip
        if why and not state.impossible:
            log.warning("the reading of memory pool %s is ignored: %s", name, why)
        state.impossible = why
        return not why

    def _note_seen(
        self, pool: str, reading: PoolReading, pids: Mapping[str, frozenset[int]]
    ) -> None:
        if reading.processes is None:
            return
        entries = self._host.scheduler.services
        for name, group in pids.items():
            held = sum(reading.processes.get(pid, 0) for pid in group)
            entry = entries.get(name)  # it may have been removed since the reading began
            if entry is not None and (held or pool in entry.seen):
                entry.seen = {**entry.seen, pool: held}

    def _note_held(
        self, pool: str, reading: PoolReading, pids: Mapping[str, frozenset[int]]
    ) -> None:
        """Remember what running services hold, for the time when they have stopped."""
        entries, ledger = self._host.scheduler.services, self._ledger
        for name, group in pids.items():
            entry, lifecycle = entries.get(name), self._services.lifecycles.get(name)
            if not group or entry is None or lifecycle is None or entry.phase == "stopping":
                continue
            if pool not in {*entry.claim, *entry.seen}:
                continue
            held = entry.seen.get(pool, 0)
            if reading.processes is None:
                claim = entry.claim.get(pool, 0)
                most = (reading.used or 0) - ledger.pools[pool].foreign
                held = max(min(claim, most - ledger.held(pool) + claim), 0)
            self._settling.note(name, lifecycle.incarnation, pool, reading, pids, held)

    def _note_pool(
        self, name: str, reading: PoolReading, pids: Mapping[str, frozenset[int]], now: float
    ) -> None:
        ledger, state = self._ledger, self.states.setdefault(name, PoolState())
        is_after_gap = state.reading is not None and now > state.read_at + _GAP_S
        state.reading, state.read_at = reading, now
        if reading.used is not None:
            holders = self._holders(now)
            # The kernel counts mapped files as available, but services hold them.
            others = foreign(
                reading.used + sum(reading.files.values()), holders, name, state.quiet_foreign,
                is_told_apart=reading.processes is not None and _has_all(holders, name, pids),
                is_quiet=not is_after_gap and not self._is_moving(name),
            )  # fmt: skip
            state.quiet_foreign = others
            ledger.pools[name] = replace(ledger.pools[name], foreign=others)
        self._relieve(name, state, now)

    def _replace_guesses(self, pools: Collection[str], now: float) -> None:
        """Give back what services hold of *pools* by a guess beyond what they were measured."""
        for entry in self._host.scheduler.services.values():
            if entry.phase != "ready" or entry.need is None:
                continue
            is_guess = entry.need.source in ("unknown", "estimated")
            if is_guess and self._ledger.learning.has_settled(entry.name, now):
                self._ledger.take_measured(entry, pools)

    def _learn(
        self, pool: str, reading: PoolReading, pids: Mapping[str, frozenset[int]], now: float
    ) -> None:
        """Give what the reading says of each running service to the learning."""
        ledger, told = self._ledger, reading.processes
        moving = [entry.name for entry in self._moving(pool)]
        ledger.learning.see_moving(pool, moving)
        for name, group in pids.items():
            entry = self._host.scheduler.services.get(name)
            if entry is None or entry.need is None:
                continue
            amounts = [] if told is None else [told.get(pid, 0) for pid in group]
            held = sum(amounts) + shared(group, reading.files, reading.whole_files)
            own = max(entry.claim.get(pool, 0), entry.seen.get(pool, 0))
            ledger.learning.see(
                Sight(
                    service=name, need=entry.need, pool=pool,
                    phase="suspending" if entry.ending == "sleep" else entry.phase,
                    incarnation=self._services.lifecycles[name].incarnation,
                    held=None if told is None else held,
                    processes=max(sum(1 for amount in amounts if amount), 1), used=reading.used,
                    is_quiet=not moving, is_alone=ledger.held(pool) <= own,
                    free=ledger.free(pool) + own, at=now,
                )
            )  # fmt: skip
        if not moving:
            ledger.learning.see_quiet(pool, reading.used)

    def _relieve(self, name: str, state: PoolState, now: float) -> None:
        """Evict idle services of a pool in which more is held than its budget for 5 s."""
        ledger = self._ledger
        if ledger.excess(name) <= 0 or not ledger.held(name):
            state.full_since, state.has_warned = None, False
            return
        if state.full_since is None:
            state.full_since = now
        if now < state.full_since + _PRESSURE_S:
            return
        state.full_since = now
        if not state.has_warned:
            state.has_warned = True
            log.warning("%s", self._pressure_in_words(name))
        if not ledger.evicts_under_pressure:
            return
        max_wait_s = self._host.scheduler.limits.max_wait_s
        for each in relief(ledger.pools[name], self._holders(now), now, ledger.rules):
            if now >= self._evicted_at.get(each, -max_wait_s) + max_wait_s:
                self._evicted_at[each] = now
                self._host.scheduler.evictions[each, "pressure"] += 1
                self._services.lifecycles[each].evict(f"evicted: pool {name} is too full")

    def _holders(self, now: float) -> list[Holder]:
        return self._ledger.holders(now, self._host.scheduler.limits.min_residency_s)

    def _is_moving(self, pool: str = "") -> bool:
        """Return True if a service that holds memory (of *pool*) starts or stops."""
        return bool(self._moving(pool))

    def _moving(self, pool: str = "") -> list[ServiceEntry]:
        """Return the services that hold memory (of *pool*) and start or stop."""
        return [
            entry
            for entry in self._host.scheduler.services.values()
            if entry.phase in ("starting", "stopping")
            and entry.ending != "stuck"
            and entry.need is not None
            and (not pool or entry.claim.get(pool, 0) or entry.seen.get(pool, 0))
        ]


def _has_all(holders: Sequence[Holder], pool: str, pids: Mapping[str, frozenset[int]]) -> bool:
    """Return True if the processes of all services that hold memory of *pool* are known.

    A service of which the driver lists nothing has not allocated yet, or runs in a container,
    whose processes have other ids for the driver.
    """
    return all(
        pids.get(holder.name) and holder.seen.get(pool, 0)
        for holder in holders
        if holder.holds(pool)
    )
