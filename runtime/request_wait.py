"""Wait of one request for its service: how long, for which swap, and why."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Literal, TypeAlias, get_args

from ..dataclass import dataclass, field

#: Who began a swap. request: a request. load, preload, unload: a command. autostart: the beginning
#: of the program. idle_load: a time without requests. idle: an idle limit. reload: a changed
#: specification. memory: other programs need it. rule: an eviction rule. failure: the service
#: itself. adoption: an earlier program has left it. shutdown: the end of the program.
SwapCause: TypeAlias = Literal[
    "request", "load", "preload", "autostart", "idle_load", "unload", "idle", "reload", "memory",
    "rule", "failure", "adoption", "shutdown",
]  # fmt: skip

SWAP_CAUSES: tuple[SwapCause, ...] = get_args(SwapCause)

_MAX_REASONS = 8
_NUMBERS = re.compile(r"[0-9]+")


@dataclass(frozen=True, slots=True)
class Swap:
    """A chain of evictions, the start that they make room for, and their hooks.

    Attributes:
        id: Unique among the swaps of all programs.
        cause: Who began it.
        request_id: Id of the request that began it; empty if none did, or it has no id.
    """

    id: str
    cause: SwapCause
    request_id: str = ""


@dataclass(slots=True, eq=False)
class RequestWait:
    """Wait of one request, which ``Supervisor.acquire`` fills in; complete when that has ended.

    All times are in seconds on the loop's clock.

    Attributes:
        cause: Why the service is acquired; a swap that begins for the request gets it.
        request_id: Id of the request; empty if it has none.
        swap: The swap that the request waited for; None if it waited for its turn alone.
        resident: Services that held resources when the request arrived, sorted.
        evicted: Services that were evicted for its service meanwhile, in that order.
        reasons: (time, reason in words), one for each reason why it waited in the queue; at most
            eight, the last of which is the latest.
        queued_at: Arrival at the scheduler; None if the request never came there.
        evicting_at: When the first eviction for its service began, or None.
        granted_at: When it was handed to its service, or None.
        ended_at: When it was admitted or refused, or None.
        start_hooks_s: Duration of the hooks of its service since it was granted.
    """

    cause: SwapCause = "request"
    request_id: str = ""
    swap: Swap | None = None
    resident: tuple[str, ...] = ()
    evicted: list[str] = field(default_factory=list)
    reasons: list[tuple[float, str]] = field(default_factory=list)
    queued_at: float | None = None
    evicting_at: float | None = None
    granted_at: float | None = None
    ended_at: float | None = None
    start_hooks_s: float = 0.0
    _hooks_before_s: float = 0.0

    def note_reason(self, now: float, why: str) -> None:
        """Record why it waits, unless only numbers in the text have changed."""
        if not why:
            return
        if self.reasons and _shape(self.reasons[-1][1]) == _shape(why):
            return
        if len(self.reasons) == _MAX_REASONS:
            self.reasons.pop()
        self.reasons.append((now, why))

    def note_eviction(self, now: float, service: str) -> None:
        """Record that *service* is evicted for the service of this request."""
        if self.evicting_at is None:
            self.evicting_at = now
        if service not in self.evicted:
            self.evicted.append(service)

    def join(self, other: RequestWait, now: float) -> None:
        """Wait from now on for the swap and the evictions that *other* waits for."""
        self.swap = other.swap
        for service in other.evicted:
            self.note_eviction(now, service)

    def note_grant(self, now: float, hooks_s: float) -> None:
        """Record that it was handed to its service, whose hooks took *hooks_s* seconds before."""
        self.granted_at, self._hooks_before_s = now, hooks_s

    def note_end(self, now: float, hooks_s: float) -> None:
        """Record that it was admitted or refused, when hooks had taken *hooks_s* seconds."""
        self.ended_at = now
        if self.granted_at is not None:
            longest_s = now - self.granted_at
            self.start_hooks_s = min(max(hooks_s - self._hooks_before_s, 0.0), longest_s)

    def until(self, now: float, hooks_s: float) -> RequestWait:
        """Return the wait as if it ended *now*; itself if it has ended."""
        if self.ended_at is not None:
            return self
        found = replace(self)
        found.note_end(now, hooks_s)
        return found

    # ---- durations, whose sum is the whole wait
    @property
    def queue_s(self) -> float:
        """Time in the queue before any eviction for its service, in seconds."""
        return self._between(self.queued_at, self._first(self.evicting_at, self.granted_at))

    @property
    def evict_s(self) -> float:
        """Time in which services were evicted for its service, in seconds."""
        return self._between(self.evicting_at, self.granted_at)

    @property
    def start_s(self) -> float:
        """Time of the start of its service without its hooks, in seconds."""
        return self._between(self.granted_at, None) - self.start_hooks_s

    @property
    def _end(self) -> float:
        return self._first(self.ended_at, self.queued_at) or 0.0

    @staticmethod
    def _first(one: float | None, other: float | None) -> float | None:
        return other if one is None else one

    def _between(self, since: float | None, until: float | None) -> float:
        if since is None:
            return 0.0
        return max((self._end if until is None else until) - since, 0.0)


def _shape(why: str) -> str:
    return _NUMBERS.sub("#", why)
