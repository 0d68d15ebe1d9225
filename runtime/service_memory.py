"""Memory of one service at its start and after its end.

These are its place, what its server prints about it, and what it gives back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

from .log_ring import LogRing
from .memory import Wanted
from .memory.footprints import RAM
from .memory.shortage import sum_with_holders
from .memory_failures import MemoryFailure, evidence_of, failure_text
from .memory_ledger import MemoryLedger
from .placement import pools_of
from .ports import Command, Exit
from .scheduling import ServiceEntry
from .start_output import StartOutput
from .waiter import PendingRequest


class Watch(Protocol):
    """Interface of the memory watch that a lifecycle needs; see `MemoryWatch`."""

    def has_to_settle(self, service: str, incarnation: int) -> bool:
        """Return True if memory of *service*, which has ended, may have to come back."""
        ...

    async def settle(self, service: str, incarnation: int) -> None:
        """Wait until the memory of *service* has come back."""
        ...

    def conclude(self, service: str, incarnation: int) -> Mapping[str, int]:
        """End the wait; return the bytes by pool that have not come back."""
        ...


#: (service, requests that wait for its start) -> those of them that cannot be taken back.
TakeBack = Callable[[str, Iterable[PendingRequest]], dict[PendingRequest, None]]


class ServiceMemory:
    """Interface of a lifecycle to the memory of its supervisor.

    Args:
        ledger: Claims on memory; None means that memory is no condition.
        watch: Reads the pools; None means that only what was granted is known.
        take_back: Moves requests back into the queue, once each, and returns the others.
    """

    def __init__(
        self, ledger: MemoryLedger | None, watch: Watch | None, take_back: TakeBack
    ) -> None:
        self._ledger, self._watch, self.take_back = ledger, watch, take_back
        self._outputs: dict[str, StartOutput] = {}

    def read_output(self, service: str, log: LogRing) -> None:
        """Read from *log*, until `end_output`, how much memory the starting *service* takes."""
        ledger = self._ledger
        entry = None if ledger is None else ledger.services.get(service)
        if ledger is None or entry is None or entry.need is None or not ledger.pools:
            return
        if (left := self._outputs.pop(service, None)) is not None:
            log.discard_reader(left)
        if ledger.learning.sizes is not None:
            output = self._outputs[service] = StartOutput(ledger.learning.sizes())
            log.add_reader(output)

    def end_output(self, service: str, incarnation: int, log: LogRing) -> None:
        """End `read_output`, and give what was printed to the learning; a no-op if it has ended."""
        output, ledger = self._outputs.pop(service, None), self._ledger
        if output is None:
            return
        log.discard_reader(output)
        entry = None if ledger is None else ledger.services.get(service)
        if ledger is not None and entry is not None:
            amounts = _by_pool(ledger, entry, output.sizes.amounts())
            ledger.learning.note_printed(service, incarnation, amounts)

    def examine(
        self, service: str, ended: Exit, tail: Callable[[int], Sequence[str]], *,
        now: float, ran_s: float | None,
    ) -> MemoryFailure | None:  # fmt: skip
        """Return the failure if *service* ended because memory ran out; its claim is raised then.

        Args:
            service: Name of the service.
            ended: How its process ended.
            tail: Returns the last lines of the output of this run, as many as it is asked for.
            now: Time in seconds.
            ran_s: Seconds for which the process ran; None means unknown.
        """
        ledger = self._ledger
        entry = None if ledger is None else ledger.services.get(service)
        if ledger is None or entry is None:
            return None
        failures = ledger.failures
        evidence = evidence_of(ended, entry.phase, tail, failures.find)
        if evidence is None:
            return None
        is_start = entry.phase == "starting"
        before, free = entry.need, entry.free_before if is_start else {}
        raised = failures.raise_claim(entry, evidence, ledger.pools, free)
        ledger.note_failure(entry)
        plan = ledger.plan(entry, now) if is_start else None
        sums, held_by = _sum_with_holders(ledger, entry, now)
        text = failure_text(
            entry, evidence, before, ran_s=ran_s, sum_text=sums, held_by=held_by,
            has_pools=bool(ledger.pools),
        )  # fmt: skip
        return failures.note(entry, evidence, raised, text, plan)

    def plan_anew(self, service: str) -> None:
        """Plan the next start of *service* anew: there was no room where it was to start."""
        entry = None if self._ledger is None else self._ledger.services.get(service)
        if self._ledger is not None and entry is not None:
            self._ledger.note_failure(entry)

    def placed(self, service: str, command: Command) -> Command:
        """Return *command* with the GPUs on which *service* was granted memory."""
        return command if self._ledger is None else self._ledger.placed(service, command)

    def missing_for_sleep(self, service: str) -> Mapping[str, int]:
        """Return the bytes by pool that are missing for *service* to go to sleep."""
        return {} if self._ledger is None else self._ledger.missing_for_sleep(service)

    def has_to_settle(self, service: str, incarnation: int) -> bool:
        """Return True if memory of *service*, which has ended, may have to come back."""
        return self._watch is not None and self._watch.has_to_settle(service, incarnation)

    async def settle(self, service: str, incarnation: int) -> None:
        """Wait until the memory of *service* has come back, as far as it can be read."""
        if self._watch is not None:
            await self._watch.settle(service, incarnation)

    def conclude(self, service: str, incarnation: int) -> Mapping[str, int]:
        """End the wait, and count what is missing as held by other programs.

        Returns:
            Pool -> bytes that have not come back.
        """
        return {} if self._watch is None else self._watch.conclude(service, incarnation)


def _by_pool(
    ledger: MemoryLedger, entry: ServiceEntry, printed: Mapping[str, int]
) -> dict[str, int]:
    """Return the bytes by pool that a server has printed by device; without pools in doubt."""
    names = [name for name in printed if name != RAM]
    pools = pools_of(names, _visible(ledger, entry), ledger.devices)
    if names and not ledger.devices:
        pools = dict.fromkeys(names, RAM)  # unified memory, if there is a GPU at all
    found: dict[str, int] = {}
    for name, amount in printed.items():
        pool = RAM if name == RAM else pools.get(name, "")
        found[pool] = found.get(pool, 0) + amount
    known = ledger.pools
    return {p: n for p, n in found.items() if p in known and n <= known[p].capacity}


def _visible(ledger: MemoryLedger, entry: ServiceEntry) -> list[str]:
    """Return the pools of the GPUs of *entry* in the order of its process; empty in doubt."""
    gpus = [pool for pool in ledger.devices if pool in entry.claim]
    is_told = ledger.decides and entry.need is not None and not entry.need.sets_devices
    if len(gpus) == len(ledger.devices):
        # CUDA puts the fastest GPU first, and equal ones in the order of their numbers.
        is_certain = len({ledger.pools[pool].capacity for pool in gpus}) == 1
        return gpus if is_certain and (is_told or len(gpus) == 1) else []
    sets_one = entry.need is not None and entry.need.sets_devices and len(gpus) == 1
    return gpus if is_told or sets_one else []


def _sum_with_holders(ledger: MemoryLedger, entry: ServiceEntry, now: float) -> tuple[str, str]:
    """Return the sum for a start of *entry* where it has its claim, and the other holders."""
    need, pools = entry.need, ledger.pools
    options = () if need is None else need.options
    places = [{p: n for p, n in option.items() if p in pools} for option in options]
    places = [place for place in places if place]
    if need is None or not places:
        return "", ""
    same = (place for place in places if place.keys() == entry.claim.keys())
    wanted = Wanted(name=entry.name, options=tuple(places), source=need.source)
    return sum_with_holders(pools, ledger.holders(now, 0.0), wanted, next(same, places[0]))
