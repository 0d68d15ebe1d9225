"""Memory yielding: services leave memory to other programs while these want it, and come back.

A rule has a condition, such as a program that runs. While it holds, services may hold no more than
the rule keeps of its pools. Idle services are evicted, busy ones once their requests have ended;
new requests for them wait meanwhile. A rule ends only after its condition was gone for a while, so
a program that is started again and again does not make services come and go.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping, Sequence

import anyio

from ..dataclass import dataclass, field
from .errors import RequestError
from .host import ServiceHost
from .memory import Holder, size
from .memory.readings import leavers
from .memory_ledger import MemoryLedger
from .request_wait import RequestWait
from .scheduling import HOLDING, ServiceEntry
from .service_table import ServiceTable
from .yield_rules import YieldCondition, YieldRule

log = logging.getLogger(__name__)

_ASK_S = 2.0  # between two looks at the conditions
_STEP_S = 1.0  # between two steps while memory is left to other programs
_LIMIT_S = 2.0  # of one look at a condition
_PATIENCE_S = 15.0  # for which a condition that is not known keeps its last result
_OTHERS_S = 5.0  # for which other programs hold much before a rule begins
_AGAIN_S = 30.0  # after which an eviction that had no effect is repeated
_RETURN_S = 600.0  # after which a service that found no room does not come back


@dataclass(slots=True, kw_only=True)
class RuleState:
    """State of one rule.

    Attributes:
        began_at: Time in seconds since which it holds; None while it does not.
        reason: Why it holds, in words.
        seen_at: Time when its condition held last.
        known_at: Time when its condition was known last.
        first_at: Time since which other programs hold much, or None.
        failure: Why its condition is not known; empty if it is.
        has_warned: That was logged.
    """

    began_at: float | None = None
    reason: str = ""
    seen_at: float = -math.inf
    known_at: float
    first_at: float | None = None
    failure: str = ""
    has_warned: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ByHand:
    """A pool that a user leaves to other programs.

    Attributes:
        keep: Bytes that services may hold meanwhile.
        since: Time in seconds when it began.
        until: Time in seconds when it ends; infinity means when the user says so.
    """

    keep: int
    since: float
    until: float = math.inf


@dataclass(frozen=True, slots=True, kw_only=True)
class ActiveYield:
    """Reason for which one pool is left to other programs.

    Attributes:
        keep: Bytes that services may hold meanwhile.
        reason: Why, in words.
        since: Time in seconds when it began.
        until: Time in seconds when it ends; infinity means that this is not known.
        evicts_pinned: Pinned services go too.
        comes_back: Services that were evicted are started again.
    """

    keep: int
    reason: str
    since: float
    until: float = math.inf
    evicts_pinned: bool = False
    comes_back: bool = True


@dataclass(slots=True, kw_only=True)
class _Leaving:
    """A service that has to go.

    Attributes:
        asked_at: Time of its eviction; None while it is busy.
        comes_back: It is started again afterwards.
    """

    asked_at: float | None = None
    comes_back: bool


@dataclass(slots=True)
class _Away:
    """Services that were evicted and come back: name -> time of their last use."""

    used_at: dict[str, float] = field(default_factory=dict)
    free_at: float = 0.0  # when memory was last left to other programs


class MemoryYielding:
    """Follows the rules of a ledger.

    Args:
        host: The supervisor.
        services: Its services.
        ledger: Its claims and rules.

    Attributes:
        states: Key of a rule -> its state.
        by_hand: Pool -> what a user has asked for.
    """

    def __init__(self, host: ServiceHost, services: ServiceTable, ledger: MemoryLedger) -> None:
        self._host, self._services, self._ledger = host, services, ledger
        self.states: dict[str, RuleState] = {}
        self.by_hand: dict[str, ByHand] = {}
        self._leaving: dict[str, _Leaving] = {}
        self._stays_until: dict[str, float] = {}  # of services that are kept a little longer
        self._away = _Away()
        self._returning = ""
        self._asked_at = -math.inf
        self._has_changed = anyio.Event()

    async def run(self) -> None:
        """Follow the rules until canceled."""
        while True:
            self._has_changed = anyio.Event()
            await self.step()
            with anyio.move_on_after(self._pause_s()):
                await self._has_changed.wait()

    def _pause_s(self) -> float:
        is_active = self.by_hand or self._leaving or self._away.used_at or any(self.active())
        return _STEP_S if is_active else _ASK_S if self._ledger.yield_rules else math.inf

    def notice(self) -> None:
        """Look again at once, since the rules have changed."""
        self._asked_at = -math.inf
        self._has_changed.set()

    async def step(self) -> None:
        """Look at the conditions if it is time, and act on them."""
        now = anyio.current_time()
        if now >= self._asked_at + _ASK_S:
            self._asked_at = now
            await self._ask()
        self._act(anyio.current_time())

    # ---- by hand
    def leave(self, pools: Iterable[str], keep: Mapping[str, int], for_s: float | None) -> None:
        """Leave *pools* to other programs for *for_s* seconds; None means until `take_back`.

        Args:
            pools: Names of pools.
            keep: Pool -> bytes that services may hold meanwhile; 0 where it is not given.
            for_s: Time in seconds, > 0, or None.
        """
        now = anyio.current_time()
        until = math.inf if for_s is None else now + for_s
        for name in pools:
            since = self.by_hand[name].since if name in self.by_hand else now
            self.by_hand[name] = ByHand(keep=keep.get(name, 0), since=since, until=until)
        self._act(now)
        self._has_changed.set()

    def take_back(self, pools: Iterable[str]) -> None:
        """End what `leave` began; rules are not affected."""
        for name in pools:
            self.by_hand.pop(name, None)
        self._act(anyio.current_time())
        self._has_changed.set()

    # ---- queries
    def active(self) -> dict[str, list[ActiveYield]]:
        """Return for each pool that is left to other programs why it is."""
        found: dict[str, list[ActiveYield]] = {}
        if not self._ledger.decides:
            return found
        for rule in self._ledger.yield_rules:
            state = self.states.get(rule.key)
            if state is None or state.began_at is None:
                continue
            for pool, keep in rule.keep.items():
                each = ActiveYield(
                    keep=keep, reason=state.reason, since=state.began_at,
                    evicts_pinned=rule.evicts_pinned, comes_back=rule.comes_back,
                )  # fmt: skip
                found.setdefault(pool, []).append(each)
        for pool, hand in self.by_hand.items():
            each = ActiveYield(
                keep=hand.keep, reason="by request", since=hand.since, until=hand.until
            )
            found.setdefault(pool, []).append(each)
        return {pool: each for pool, each in found.items() if pool in self._ledger.pools}

    def leaving(self) -> Sequence[str]:
        """Return the services that have to go and are still there, sorted."""
        return sorted(self._leaving)

    def away(self) -> Sequence[str]:
        """Return the services that come back, the one that was used last first."""
        used_at = self._away.used_at
        return sorted(used_at, key=lambda name: (-used_at[name], name))

    # ---- conditions
    async def _ask(self) -> None:
        """Look at all conditions at once."""
        rules = self._ledger.yield_rules
        for key in self.states.keys() - {rule.key for rule in rules}:
            del self.states[key]
        if not self._ledger.decides:
            return
        own = [
            pid
            for lifecycle in self._services.lifecycles.values()
            if lifecycle.process is not None
            for pid in lifecycle.process.pids()
        ]
        results: dict[str, str | OSError] = {}

        async def ask(key: str, condition: YieldCondition) -> None:
            try:
                with anyio.fail_after(_LIMIT_S):
                    results[key] = await condition.reason(own)
            except OSError as error:  # a timeout is one
                results[key] = error

        async with anyio.create_task_group() as tasks:
            for rule in rules:
                if rule.condition is not None:
                    tasks.start_soon(ask, rule.key, rule.condition)
        now = anyio.current_time()
        for rule in rules:
            result = results[rule.key] if rule.condition is not None else self._others(rule)
            self._note(rule, result, now)

    def _others(self, rule: YieldRule) -> str:
        """Return which pool of *rule* other programs hold much of, in words; else empty."""
        assert rule.others is not None
        for name in rule.keep:
            pool = self._ledger.pools.get(name)
            if pool is not None and pool.foreign >= rule.others:
                return f"other programs hold {size(pool.foreign)} of {name}"
        return ""

    def _note(self, rule: YieldRule, result: str | OSError, now: float) -> None:
        state = self.states.setdefault(rule.key, RuleState(known_at=now))
        if isinstance(result, OSError):
            state.failure = str(result) or type(result).__name__
            if now < state.known_at + _PATIENCE_S:
                return
            if not state.has_warned:
                state.has_warned = True
                log.warning("a condition of `yield` is not known, so it does not count: %s",
                            state.failure)  # fmt: skip
            result = ""
        else:
            state.known_at, state.failure, state.has_warned = now, "", False
        if not result:
            state.first_at = None
            if now >= state.seen_at + rule.quiet_for_s:
                state.began_at = None
            return
        state.first_at = now if state.first_at is None else state.first_at
        lasts_s = _OTHERS_S if rule.condition is None else 0.0
        if state.began_at is None:
            if now < state.first_at + lasts_s:
                return
            state.began_at = now
        state.seen_at, state.reason = now, result

    # ---- actions
    def _act(self, now: float) -> None:
        for pool in [name for name, hand in self.by_hand.items() if now >= hand.until]:
            del self.by_hand[pool]
        active = self.active()
        has_changed = self._set_pools(active)
        if active:
            self._away.free_at = now
            self._name_leavers(active, now)
        else:
            self._stays_until.clear()
        has_changed |= self._see_off(active, now)
        if has_changed:
            self._host.review()
        self._bring_back(active, now)

    def _set_pools(self, active: Mapping[str, Sequence[ActiveYield]]) -> bool:
        """Tell the ledger what is left to other programs; return True if that has changed."""
        has_changed = False
        for name, pool in list(self._ledger.pools.items()):
            reasons = ", ".join(dict.fromkeys(each.reason for each in active.get(name, ())))
            keep = min((each.keep for each in active.get(name, ())), default=None)
            because = f"{name} is left to other programs ({reasons})" if reasons else ""
            if not self._ledger.leave(name, keep, because):
                continue
            has_changed = True
            if keep is None:
                log.info("memory pool %s is for models again", name)
            elif pool.keep is None:
                log.info("memory pool %s, of which models keep %s", because, size(keep))
        return has_changed

    def _name_leavers(self, active: Mapping[str, Sequence[ActiveYield]], now: float) -> None:
        """Name further services that have to go; requests for them wait from now on."""
        for name, yields in active.items():
            pool = self._ledger.pools[name]
            found = leavers(
                pool, self._holders(now), now, self._ledger.rules, leaving=self._leaving,
                with_pinned=any(each.evicts_pinned for each in yields),
            )  # fmt: skip
            for service in found:
                entry = self._host.scheduler.services[service]
                limit_s = self._host.scheduler.limits.min_residency_s
                if now < self._stays_until.setdefault(service, entry.stays_until(limit_s)):
                    continue
                self._leaving[service] = _Leaving(
                    comes_back=all(each.comes_back for each in yields)
                )
                entry.leaving_reason, entry.is_open = pool.left_because, False

    def _holders(self, now: float) -> list[Holder]:
        """Return the services that run or sleep with memory."""
        services = self._host.scheduler.services
        limits = self._host.scheduler.limits
        return [
            holder
            for holder in self._ledger.holders(now, limits.min_residency_s)
            if _is_there(services[holder.name])
        ]

    def _see_off(self, active: Mapping[str, Sequence[ActiveYield]], now: float) -> bool:
        """Evict what has to go and is idle; return True if a service is open for requests again."""
        has_changed = False
        for name, leaving in list(self._leaving.items()):
            entry = self._host.scheduler.services.get(name)
            lifecycle = self._services.lifecycles.get(name)
            if entry is None or lifecycle is None:
                del self._leaving[name]
                continue
            pools = [pool for pool in {*entry.claim, *entry.seen} if pool in active]
            if not _is_there(entry) or not (pools or entry.phase == "stopping"):
                del self._leaving[name]
                entry.leaving_reason, has_changed = "", True
            elif entry.phase in ("ready", "asleep") and not entry.granted:
                if leaving.asked_at is not None and now < leaving.asked_at + _AGAIN_S:
                    continue
                leaving.asked_at = now
                self._host.scheduler.evictions[name, "yield"] += 1
                if leaving.comes_back and entry.phase == "ready":
                    self._away.used_at[name] = entry.used_at
                lifecycle.evict(f"evicted: {entry.leaving_reason}")
        return has_changed

    # ---- afterwards
    def _bring_back(self, active: Mapping[str, Sequence[ActiveYield]], now: float) -> None:
        """Start the service that was used last, if no request waits and there is room for it."""
        scheduler = self._host.scheduler
        entries, used_at = scheduler.services, self._away.used_at
        for name in [n for n in used_at if n not in entries or _is_back(entries[n])]:
            del used_at[name]
        if not used_at or active or self._returning or scheduler.queue:
            return
        if now >= self._away.free_at + _RETURN_S:
            used_at.clear()
            return
        if any(entry.phase in ("starting", "stopping") for entry in entries.values()):
            return
        for name in self.away():
            evicted, why, error = scheduler.explain(name, now)
            if evicted or error is not None:
                del used_at[name]
                reason = error or f"{', '.join(sorted(evicted))} would have to go"
                log.info("%s does not come back: %s", name, reason)
            elif not why:
                del used_at[name]
                self._returning = name
                self._host.spawn(self._start, name)
                return

    async def _start(self, name: str) -> None:
        try:
            log.info("%s comes back, since its memory is for models again", name)
            await self._host.acquire(name, wait=RequestWait(cause="memory"))
        except (RequestError, KeyError) as error:
            log.warning("%s could not come back: %s", name, error)
        else:
            self._host.release(name)
        finally:
            self._returning = ""


def _is_there(entry: ServiceEntry) -> bool:
    """Return True if the service runs or sleeps, so that it can hold memory."""
    return entry.phase in HOLDING or entry.phase == "asleep"


def _is_back(entry: ServiceEntry) -> bool:
    """Return True if a request has started the service meanwhile, or it cannot start."""
    return entry.phase not in ("stopping", "stopped") and not entry.leaving_reason
