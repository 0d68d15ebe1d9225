"""Footprints: what earlier runs of a launch held of each pool, and the need that follows. Pure.

A declared amount counts first, then what this launch was seen to hold, then arithmetic from its
files and options; otherwise nothing is known and the service runs alone. A launch is identified by
a key of its command, its files and its devices, so a changed option is another launch: until that
one has run, the amount of the old one is adjusted by the difference of the two estimates.

One run is enough to know a server that allocates at its start: the highest amounts of three equal
launches of a llama-server were 331.6, 331.7 and 331.7 MiB.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Literal, TypeAlias

from ...dataclass import dataclass
from .notices import Notice
from .sums import size
from .values import MemoryNeed

#: process: the driver told each process apart. delta: difference of the whole pool between two
#: quiet moments. log: the server wrote it to its log.
Method: TypeAlias = Literal["process", "delta", "log"]

RAM = "RAM"
RUNS = 5  # of a launch that are kept
_MARGINS: Mapping[str, float] = {"process": 0.03, "delta": 0.08, "log": 0.08}
_GPU_PROCESS = 64 << 20  # margin for each process on a GPU, in bytes
_UNUSED = 0.4  # share of a declaration that is worth a notice
_EXCESS = 1.05  # factor of a declaration beyond which a service has exceeded it


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """Memory of one pool that one run of a service held.

    Attributes:
        model: Name of the service.
        key: Identifies its launch.
        run: Identifies the run.
        pool: Name of the pool.
        at: Time of the last change, in seconds since 1970.
        ready: Bytes when it became ready.
        highest: Most bytes of the run.
        asleep: Most bytes while it slept; 0 if it never did.
        method: How that was measured.
        processes: Number of its processes that held memory of the pool.
        is_alone: No other service held memory of the pool when it started.
        free_before: Bytes that were free for it when it started.
        estimated: Bytes by arithmetic; 0 means unknown.
    """

    model: str
    key: str
    run: str
    pool: str
    at: float
    ready: int
    highest: int
    asleep: int = 0
    method: Method = "process"
    processes: int = 1
    is_alone: bool = True
    free_before: int = 0
    estimated: int = 0

    @property
    def claim(self) -> int:
        """Bytes to reserve for another run like this one, with a margin."""
        return self._with_margin(self.highest)

    @property
    def asleep_claim(self) -> int:
        """Bytes to reserve while it sleeps; 0 if it never did."""
        return self._with_margin(self.asleep) if self.asleep else 0

    def _with_margin(self, amount: int) -> int:
        margin = int(amount * _MARGINS[self.method])
        if self.method == "process" and self.pool != RAM:
            margin += _GPU_PROCESS * self.processes
        return amount + margin


@dataclass(frozen=True, slots=True, kw_only=True)
class Footprint:
    """Memory of one pool in the last runs of one launch.

    Attributes:
        model: Name of the service.
        key: Identifies the launch.
        pool: Name of the pool.
        claim: Bytes that its next start reserves.
        ready: Bytes of the last run when it became ready.
        highest: Most bytes of the last five runs.
        asleep: Most bytes while it slept, in the last five runs; 0 if it never did.
        runs: Number of runs, 1 to 5.
        method: How the last run was measured.
        at: Time of the last change, in seconds since 1970.
    """

    model: str
    key: str
    pool: str
    claim: int
    ready: int
    highest: int
    asleep: int
    runs: int
    method: Method
    at: float


class Footprints:
    """Observations of the last five runs of each launch.

    Args:
        observations: Earlier ones, the oldest first.
    """

    def __init__(self, observations: Iterable[Observation] = ()) -> None:
        self._runs: dict[str, dict[str, dict[str, Observation]]] = {}  # key -> run -> pool
        for observation in observations:
            self.add(observation)

    def add(self, observation: Observation) -> None:
        """Add *observation*, or replace the earlier one of its run and pool."""
        runs = self._runs.setdefault(observation.key, {})
        runs.setdefault(observation.run, {})[observation.pool] = observation
        while len(runs) > RUNS:
            del runs[next(iter(runs))]

    def forget(self, model: str) -> int:
        """Forget all launches of *model*, and return their number."""
        gone = [key for key, runs in self._runs.items() if _model_of(runs) == model]
        for key in gone:
            del self._runs[key]
        return len(gone)

    def all(self) -> list[Footprint]:
        """Return the footprint of each launch and pool, by model and pool."""
        found = [
            _footprint(seen)
            for key in self._runs
            for seen in self._by_pool(key, is_elastic=False).values()
        ]
        return sorted(found, key=lambda each: (each.model, each.key, each.pool))

    def need(self, model: str, base: MemoryNeed) -> MemoryNeed:
        """Return the need of *model* by the best that is known.

        Args:
            model: Name of the service.
            base: Its need by its declaration or by arithmetic; the pools of its first option are
                those that count.
        """
        seen = self._by_pool(base.key, is_elastic=base.is_elastic) if base.key else {}
        asleep = base.asleep or {
            pool: amount
            for pool, runs in seen.items()
            if (amount := max(each.asleep_claim for each in runs))
        }
        base = replace(base, asleep=asleep)
        if base.source == "declared" or not base.options:
            return base
        place = base.options[0]
        learned = {pool: max(each.claim for each in seen[pool]) for pool in place if pool in seen}
        if learned:
            return replace(base, options=(learned,), source="learned", note="")
        adjusted = self._adjusted(model, base)
        if adjusted:
            return replace(base, options=(adjusted,), source="estimated")
        return base

    def _adjusted(self, model: str, base: MemoryNeed) -> dict[str, int]:
        """Return what another launch of *model* held, plus the difference of the estimates."""
        if base.source != "estimated":
            return {}
        keys = [
            key for key, runs in self._runs.items() if _model_of(runs) == model and key != base.key
        ]
        newest = max(keys, key=self._last_at, default=None)
        if newest is None:
            return {}
        adjusted = dict(base.options[0])
        seen = self._by_pool(newest, is_elastic=base.is_elastic)
        known = [pool for pool in adjusted if pool in seen and seen[pool][-1].estimated]
        for pool in known:
            learned = max(each.claim for each in seen[pool])
            change = adjusted[pool] - seen[pool][-1].estimated
            adjusted[pool] = max(learned + change, 1)
        return adjusted if known else {}

    def notices(self, model: str, need: MemoryNeed) -> list[Notice]:
        """Return what is worth a notice.

        That is a declaration that a run has exceeded or that five runs have never used up, and a
        server without declaration that fits itself into what is free.
        """
        if need.is_elastic and need.source != "declared":
            text = (
                f"{model} fits itself into what is free, so its memory depends on what else runs: "
                "give it -c and -ngl, or --fit off"
            )
            return [Notice(kind="elastic", service=model, text=text)]
        if need.source != "declared" or not need.key or not need.options:
            return []
        found = []
        for pool, runs in self._by_pool(need.key, is_elastic=False).items():
            declared = max(place.get(pool, 0) for place in need.options)
            highest = max(each.highest for each in runs)
            if is_exceeded(declared, highest):
                text = (
                    f"{model} has held {size(highest)} of {pool} and declares {size(declared)}: "
                    "raise its `memory`"
                )
                found.append(Notice(kind="exceeded", service=model, pool=pool, text=text))
            elif len(runs) == RUNS and declared and highest <= declared * (1 - _UNUSED):
                text = (
                    f"{model} declares {size(declared)} of {pool} and never held more than "
                    f"{size(highest)} in its last {RUNS} runs"
                )
                found.append(Notice(kind="unused", service=model, pool=pool, text=text))
        return found

    def _by_pool(self, key: str, *, is_elastic: bool) -> dict[str, list[Observation]]:
        """Return the observations of a launch by pool, the oldest run first."""
        found: dict[str, list[Observation]] = {}
        for pools in self._runs.get(key, {}).values():
            for pool, observation in pools.items():
                if observation.is_alone or not is_elastic:
                    found.setdefault(pool, []).append(observation)
        return found

    def _last_at(self, key: str) -> float:
        return max(each.at for pools in self._runs[key].values() for each in pools.values())


def is_exceeded(declared: int, seen: int) -> bool:
    """Return True if *seen* bytes are more than a declaration allows for."""
    return 0 < declared * _EXCESS < seen


def _footprint(runs: Sequence[Observation]) -> Footprint:
    last = runs[-1]
    return Footprint(
        model=last.model, key=last.key, pool=last.pool, claim=max(each.claim for each in runs),
        ready=last.ready, highest=max(each.highest for each in runs),
        asleep=max(each.asleep for each in runs), runs=len(runs), method=last.method, at=last.at,
    )  # fmt: skip


def _model_of(runs: Mapping[str, Mapping[str, Observation]]) -> str:
    """Return the service of one launch; all its observations have the same."""
    return next((each.model for pools in runs.values() for each in pools.values()), "")
