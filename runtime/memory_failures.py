"""Memory failures: services that ended because memory ran out, and what follows for their starts.

The evidence is a kill by the kernel, or a line of output of a process that failed. Lines count only
if the process ended: an engine may go on from an allocation that failed, and the text of a user may
be in its log. While a service starts no user can write there, so more lines are searched then.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from ..dataclass import dataclass
from .memory import Amounts, MemoryNeed, Notice, Plan, Pool, size
from .memory.shortage import GOOD_RUNS, Evidence, Shortage, Shortages, next_amount, short_pools
from .ports import Exit
from .scheduling import Phase, ServiceEntry

log = logging.getLogger(__name__)

_KILLED = 9
_KILLED_CODE = 128 + _KILLED  # of a shell or a container engine whose process was killed
_LINES_OF_START, _LINES_OF_RUN = 200, 20


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryFailure:
    """One end of a service because memory ran out.

    Attributes:
        service: Name of the service.
        at: Time in seconds since 1970.
        text: What happened, the sum and what to do, for clients.
        line: The evidence: a line of output, which is for administrators, or how it ended.
        can_retry: Another start may succeed, since other services can go for it.
    """

    service: str
    at: float
    text: str
    line: str
    can_retry: bool


def evidence_of(
    ended: Exit, phase: Phase, tail: Callable[[int], Sequence[str]],
    find: Callable[[Sequence[str]], Evidence | None],
) -> Evidence | None:  # fmt: skip
    """Return the evidence that memory ran out, or None.

    Args:
        ended: How the process ended.
        phase: Phase of its service until then.
        tail: Returns the last lines of its output, as many as it is asked for.
        find: Returns the evidence in lines of output.
    """
    if ended.is_clean or phase not in ("starting", "ready", "asleep"):
        return None
    if ended.out_of_memory and (ended.signal == _KILLED or ended.code == _KILLED_CODE):
        return Evidence(line=str(ended), kind="ram", is_kill=True)
    return find(tail(_LINES_OF_START if phase == "starting" else _LINES_OF_RUN))


class MemoryFailures:
    """Ends of services because memory ran out, and the claims that were raised for them.

    Args:
        shortages: Earlier ones that are in force.
        find: Returns the evidence in the last lines of output of a process that failed, or None.
        clock: Returns the time in seconds since 1970.
        store: Called with each shortage that is new or has changed; must not wait. One with
            `GOOD_RUNS` good runs has ended.

    Attributes:
        shortages: The claims that were raised.
        counts: Service -> number of failures.
        last: Service -> its last failure.
    """

    def __init__(
        self, shortages: Iterable[Shortage] = (), *,
        find: Callable[[Sequence[str]], Evidence | None] = lambda lines: None,
        clock: Callable[[], float] = lambda: 0.0,
        store: Callable[[Shortage], None] = lambda shortage: None,
    ) -> None:  # fmt: skip
        self.shortages = Shortages(shortages)
        self.counts: Counter[str] = Counter()
        self.last: dict[str, MemoryFailure] = {}
        self.find, self.clock, self._store = find, clock, store
        self._was_ready: set[str] = set()

    def note_phase(self, service: str, phase: Phase, key: str) -> None:
        """Take the new phase of a service: a run that was ready and ends is a good one."""
        if phase == "ready":
            self._was_ready.add(service)
        elif phase in ("stopped", "failed", "reviving") and service in self._was_ready:
            self._was_ready.discard(service)
            for changed in self.shortages.count_good_run(service, key):
                self._store(changed)

    def forget(self, service: str) -> None:
        """Forget the failures of *service*; the caller deletes what is stored."""
        self.shortages.forget(service)
        self.last.pop(service, None)

    def raise_claim(
        self, entry: ServiceEntry, evidence: Evidence, pools: dict[str, Pool], free: Amounts
    ) -> list[Shortage]:
        """Raise what the next start of *entry* reserves, and return the new shortages.

        Args:
            entry: The service.
            evidence: Sign of the failure.
            pools: All pools.
            free: Bytes by pool that were free for its start; empty for one that was ready.
        """
        self._was_ready.discard(entry.name)
        need = entry.need
        if need is None or need.source == "unknown" or not need.options:
            return []
        place = next((p for p in need.options if p.keys() == entry.claim.keys()), need.options[0])
        raised = []
        for pool in short_pools([name for name in place if name in pools], evidence.kind):
            claim = max(place[pool], entry.claim.get(pool, 0))
            files = need.files // max(len(place), 1)
            asked = evidence.size + max(entry.seen.get(pool, 0), files) if evidence.size else 0
            amount = next_amount(claim, pools[pool], free=free.get(pool, 0), asked=asked)
            shortage = Shortage(
                model=entry.name, key=need.key, pool=pool, at=self.clock(), claim=claim,
                amount=amount,
            )  # fmt: skip
            raised.append(shortage)
            self.shortages.add(shortage)
            self._store(shortage)
        return raised

    def notices(self) -> list[Notice]:
        """Return a notice for each claim that was raised."""
        return [
            Notice(
                kind="short", service=each.model, pool=each.pool,
                text=f"{each.model} ran out of memory with {size(each.claim)} of {each.pool}, so it"
                f" reserves {size(each.amount)} until {GOOD_RUNS - each.good_runs} more runs have"
                " gone well",
            )
            for each in self.shortages.all()
        ]  # fmt: skip

    def note(
        self, entry: ServiceEntry, evidence: Evidence, raised: Sequence[Shortage], text: str,
        plan: Plan | None,
    ) -> MemoryFailure:  # fmt: skip
        """Record and log one failure.

        Args:
            entry: The service.
            evidence: Sign of the failure.
            raised: The claims that were raised for it.
            text: What happened and what to do.
            plan: Plan of another start; None if there is none.
        """
        can_retry = (
            plan is not None
            and plan.kind in ("evict", "wait")
            and bool(plan.evict or plan.waits_for)
        )
        failure = MemoryFailure(
            service=entry.name, at=self.clock(), text=text, line=evidence.line,
            can_retry=can_retry,
        )  # fmt: skip
        self.counts[entry.name] += 1
        self.last[entry.name] = failure
        amounts = ", ".join(
            f"{size(each.amount)} of {each.pool} (before: {size(each.claim)})" for each in raised
        )
        log.warning(
            "%s ran out of memory: %s%s%s", entry.name, evidence.line,
            f"; its next start reserves {amounts}" if amounts else "",
            f"; {_who_goes(plan)}" if plan is not None and can_retry else "",
        )  # fmt: skip
        return failure


def _who_goes(plan: Plan) -> str:
    names = sorted({*plan.evict, *plan.waits_for})
    return f"it is started once more after {', '.join(names)} has made room"


def failure_text(
    entry: ServiceEntry, evidence: Evidence, need: MemoryNeed | None, *, ran_s: float | None,
    sum_text: str, held_by: str, has_pools: bool,
) -> str:  # fmt: skip
    """Return for clients what happened, the sum, and what to do.

    Args:
        entry: The service, as it was.
        evidence: Sign of the failure.
        need: What it was known to need; None if memory is no condition for it.
        ran_s: Seconds for which the process ran; None means unknown.
        sum_text: The sum of each pool.
        held_by: Services that hold memory there, in words; empty if there are none.
        has_pools: Memory decides which services run.
    """
    after = "" if ran_s is None else f" {ran_s:.1f} s after its launch"
    cause = evidence.in_words()
    parts = [f"{entry.name} ran out of memory{after}" + (f": {cause}" if cause else "")]
    if sum_text:
        claims = ", ".join(f"{size(n)} of {pool}" for pool, n in sorted(entry.claim.items()))
        parts += [f"it was granted {claims}"] if claims else []
        parts.append(sum_text)
        parts.append(f"held by {held_by}" if held_by else "no other model held memory there")
    advice = [need.advice] if need is not None and need.advice else []
    advice.append("use a smaller context, quantization or model")
    if need is not None and need.source == "declared":
        advice.append("raise its `memory`")
    elif not has_pools:
        advice.append("set `memory: auto`, so that only models that fit together run together")
    return "; ".join(parts) + ". To run it: " + ", or ".join(advice)
