"""Memory learning: turns the readings of each run of a service into its footprint.

An observation of a run exists from the first reading at which the service is ready. It is reported
again whenever the service was seen to hold clearly more, and at the end of the run, so that little
is lost if the proxy is killed.

Where the driver does not say what a service holds, the sizes that its server has printed count.
Without these it is the difference of the pool between the quiet moments before and after the start,
and a start during which another service started or stopped in the pool is thrown away.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping

from ..dataclass import dataclass, field
from .memory import MemoryNeed, Notice, size
from .memory.footprints import Footprints, Method, Observation, is_exceeded
from .start_output import SizeReader

log = logging.getLogger(__name__)

_SETTLED_S = 30.0  # without growth, after which what was measured replaces a guess
_CHANGE = 1.01  # factor by which the highest amount grows before it is reported again


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """One service in one reading of one pool.

    Attributes:
        service: Name of the service.
        need: Its need at present.
        incarnation: Number of its run.
        phase: What it does; ``suspending`` is the way to its sleep.
        pool: Name of the pool.
        held: Bytes that its processes hold; None if the driver cannot tell them apart.
        processes: Number of its processes that hold memory of the pool.
        used: Bytes that all programs use; None means unknown.
        is_quiet: No service starts or stops in the pool.
        is_alone: No other service holds memory of the pool.
        free: Bytes that are free or its own.
        at: Time of the reading in seconds.
    """

    service: str
    need: MemoryNeed
    incarnation: int
    phase: str
    pool: str
    held: int | None
    processes: int
    used: int | None
    is_quiet: bool
    is_alone: bool
    free: int
    at: float = 0.0


@dataclass(slots=True, kw_only=True)
class _PoolRun:
    """Memory of one pool that one run has held so far; in bytes.

    Attributes:
        awake_used: Use of the whole pool in the last quiet moment in which it was ready; None if
            another service has moved since.
        grown_at: Time in seconds of the last reading that was clearly larger.
    """

    is_alone: bool
    free_before: int
    used_before: int | None
    is_overlapped: bool = False
    method: Method = "process"
    ready: int = 0
    highest: int = 0
    asleep: int = 0
    processes: int = 1
    awake_used: int | None = None
    grown_at: float = 0.0
    grown_to: int = 0
    reported: tuple[int, int] = (0, 0)


@dataclass(slots=True, kw_only=True)
class _Run:
    """One run of a service."""

    incarnation: int
    need: MemoryNeed
    pools: dict[str, _PoolRun] = field(default_factory=dict)
    has_warned: bool = False


class MemoryLearning:
    """Footprints of all services, and the runs that add to them.

    Args:
        observations: Earlier ones, the oldest first.
        instance: Id of this run of the proxy, part of the id of each run of a service.
        clock: Returns the time in seconds since 1970.
        store: Called with each observation that is new or has changed; must not wait.
        forget: Called with the name of a service whose observations are forgotten; must not wait.
        sizes: Makes a reader of the sizes that servers print; None reads none.

    Attributes:
        footprints: What is known.
        sizes: Makes a reader of the sizes that servers print, or None.
    """

    def __init__(
        self, observations: Iterable[Observation] = (), *, instance: str = "",
        clock: Callable[[], float] = lambda: 0.0,
        store: Callable[[Observation], None] = lambda observation: None,
        forget: Callable[[str], None] = lambda service: None,
        sizes: Callable[[], SizeReader] | None = None,
    ) -> None:  # fmt: skip
        self.footprints, self.sizes = Footprints(observations), sizes
        self._instance, self._clock = instance, clock
        self._store, self._forget = store, forget
        self._bases: dict[str, MemoryNeed] = {}
        self._runs: dict[str, _Run] = {}
        self._quiet_used: dict[str, int] = {}
        self._printed: dict[str, tuple[int, Mapping[str, int]]] = {}

    # ---- needs
    def adopt(self, service: str, base: MemoryNeed | None) -> MemoryNeed | None:
        """Return the need of *service* by the best that is known; *base* is its specification's."""
        if base is None:
            self._bases.pop(service, None)
            self._printed.pop(service, None)
            return None
        self._bases[service] = base
        return self.footprints.need(service, base)

    def need(self, service: str) -> MemoryNeed | None:
        """Return the need of *service* by what is known now; None if it has none."""
        base = self._bases.get(service)
        return None if base is None else self.footprints.need(service, base)

    def forget(self, service: str) -> int:
        """Forget what was learned of *service*, and return the number of its launches.

        A run that is under way is learned again from its next reading on.
        """
        self._runs.pop(service, None)
        self._forget(service)
        return self.footprints.forget(service)

    def notices(self) -> list[Notice]:
        """Return a notice for each service whose options or declaration need a change."""
        return [
            notice
            for name, base in sorted(self._bases.items())
            for notice in self.footprints.notices(name, base)
        ]

    def has_settled(self, service: str, now: float) -> bool:
        """Return True if the run of *service* was measured, and has not grown for 30 s."""
        run = self._runs.get(service)
        parts = [] if run is None else [part for part in run.pools.values() if part.ready]
        return bool(parts) and all(now >= part.grown_at + _SETTLED_S for part in parts)

    # ---- readings
    def see(self, sight: Sight) -> None:
        """Take what one reading says of one running service."""
        run = self._runs.get(sight.service)
        if run is None or run.incarnation != sight.incarnation:
            self._end(sight.service)
            base = self._bases.get(sight.service, sight.need)
            run = self._runs[sight.service] = _Run(incarnation=sight.incarnation, need=base)
        part = run.pools.get(sight.pool)
        if part is None:
            has_begun = sight.phase != "starting"  # then the pool was read with its memory in it
            part = run.pools[sight.pool] = _PoolRun(
                is_alone=sight.is_alone, free_before=sight.free,
                used_before=None if has_begun else self._quiet_used.get(sight.pool),
            )  # fmt: skip
        if sight.phase == "asleep":
            self._note_asleep(sight, run, part)
        else:
            held, method = self._held(sight, part)
            if held:
                part.method = method
                self._note(sight, run, part, held)

    def note_printed(self, service: str, incarnation: int, amounts: Mapping[str, int]) -> None:
        """Note the bytes by pool that *service* takes in this run, as its server has printed."""
        self._printed[service] = incarnation, amounts

    def see_quiet(self, pool: str, used: int | None) -> None:
        """Note the bytes that all programs use of *pool* while no service starts or stops in it."""
        if used is not None:
            self._quiet_used[pool] = used

    def end_others(self, running: Iterable[str]) -> None:
        """End the runs of all services that are not *running*."""
        for service in self._runs.keys() - set(running):
            self._end(service)

    def see_moving(self, pool: str, moving: Iterable[str]) -> None:
        """Note that the services *moving* start or stop in *pool*."""
        names = set(moving)
        for service, run in self._runs.items():
            if pool in run.pools and names - {service}:
                run.pools[pool].awake_used = None
                run.pools[pool].is_overlapped |= not run.pools[pool].ready

    def _held(self, sight: Sight, part: _PoolRun) -> tuple[int, Method]:
        """Return what the service holds, 0 if that is unknown, and how it was measured."""
        incarnation, printed = self._printed.get(sight.service, (0, {}))
        if sight.held is None and incarnation == sight.incarnation and sight.pool in printed:
            return printed[sight.pool], "log"
        if sight.held is not None:
            return sight.held, "process"
        if not sight.is_quiet or sight.used is None or part.is_overlapped or part.ready:
            return part.highest, "delta"
        return 0 if part.used_before is None else max(sight.used - part.used_before, 0), "delta"

    def _note(self, sight: Sight, run: _Run, part: _PoolRun, held: int) -> None:
        is_waking = sight.phase == "starting" and part.ready
        if sight.phase != "suspending" and not is_waking:  # else both amounts are held
            part.highest = max(part.highest, held)
            if held > part.grown_to * _CHANGE:
                part.grown_to, part.grown_at = held, sight.at
        if sight.phase == "ready":
            part.ready = part.ready or held
            part.processes = max(part.processes, sight.processes)
            if sight.held is None and sight.is_quiet:
                part.awake_used = sight.used
            self._warn_if_exceeded(sight, run, held)
        self._report_growth(sight, run, part)

    def _note_asleep(self, sight: Sight, run: _Run, part: _PoolRun) -> None:
        """Note what a service holds asleep; by difference, what it held less what came back."""
        if sight.held is not None:
            part.asleep = max(part.asleep, sight.held)
        elif sight.is_quiet and sight.used is not None and part.awake_used is not None:
            part.asleep = max(part.highest - (part.awake_used - sight.used), 0)
        self._report_growth(sight, run, part)

    def _report_growth(self, sight: Sight, run: _Run, part: _PoolRun) -> None:
        highest, asleep = part.reported
        if part.ready and (part.highest > highest * _CHANGE or part.asleep > asleep * _CHANGE):
            self._report(sight.service, sight.pool, run, part)

    def _warn_if_exceeded(self, sight: Sight, run: _Run, held: int) -> None:
        need = sight.need
        if run.has_warned or need.source != "declared" or not need.options:
            return
        declared = max(place.get(sight.pool, 0) for place in need.options)
        if is_exceeded(declared, held):
            run.has_warned = True
            log.warning(
                "%s holds %s of %s and declares %s: raise its `memory`",
                sight.service, size(held), sight.pool, size(declared),
            )  # fmt: skip

    def _end(self, service: str) -> None:
        run = self._runs.pop(service, None)
        if run is None:
            return
        for pool, part in run.pools.items():
            if part.ready and (part.highest, part.asleep) != part.reported:
                self._report(service, pool, run, part)

    def _report(self, service: str, pool: str, run: _Run, part: _PoolRun) -> None:
        if not run.need.key:
            return
        part.reported = part.highest, part.asleep
        observation = Observation(
            model=service, key=run.need.key, run=f"{self._instance}-{run.incarnation}", pool=pool,
            at=self._clock(), ready=part.ready, highest=part.highest, asleep=part.asleep,
            method=part.method, processes=part.processes,
            is_alone=part.is_alone, free_before=part.free_before,
            estimated=run.need.estimated.get(pool, 0),
        )  # fmt: skip
        self.footprints.add(observation)
        self._store(observation)
