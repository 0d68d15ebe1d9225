"""Decision about checkpoints: which slots to save, and when. Pure.

A save runs on the server's decode thread and cannot be canceled, so a request that arrives
meanwhile waits for its end. A save that is expected to be short may start as soon as the server is
idle. A longer one needs an idle time of a multiple of its length, and only as many are allowed that
at most one request in a hundred meets one.
"""

from __future__ import annotations

from collections import deque

from ....dataclass import dataclass
from ..effectiveness import Effectiveness

SHORT_SAVE_MS = 50.0
"""Longest wait of a request for a save, for 99 of 100 requests."""

_QUIET_S = 0.25  # idle time before a short save: an agent's next turn often comes sooner
_LONG_QUIET_S = 2.0  # least idle time before a long save, or one whose length is unknown
_QUIET_FACTOR = 20.0  # idle time before a long save, in lengths of the save
_MET_SHARE = 0.01  # requests that may meet a long save
_FREE_REQUESTS = 100  # counted before the first request, so that a first long save is possible
_LEAST_GROWTH = 16  # tokens
_GROWTH_SHARE = 0.5  # growth that is needed once the write budget is used up
_HOUR_S = 3600.0
_SAVES = 8  # that the expected length of a save is derived from


class WriteBudget:
    """Budget of bytes written in an hour: a token bucket that begins full.

    Args:
        size: Bytes in an hour, > 0.
        now: Present time on any clock; seconds.
    """

    def __init__(self, size: int, now: float) -> None:
        self.size, self._left, self._at = size, float(size), now

    def resize(self, size: int, now: float) -> None:
        """Use another *size* from now on; the share that is left stays."""
        self._left, self.size = self.share(now) * size, size

    def share(self, now: float) -> float:
        """Return the share that is left, 0 to 1."""
        refilled = max(now - self._at, 0.0) * self.size / _HOUR_S
        self._left, self._at = min(self._left + refilled, float(self.size)), now
        return max(self._left, 0.0) / self.size

    def allows(self, size: int, now: float) -> bool:
        """Return True if *size* bytes may be written now."""
        return size <= self.share(now) * self.size

    def spend(self, size: int, now: float) -> None:
        """Subtract *size* bytes, which were written."""
        self.share(now)
        self._left -= size


class SaveSpeed:
    """Expected length of a save, from the last ones."""

    def __init__(self) -> None:
        self._seen: deque[tuple[int, float]] = deque(maxlen=_SAVES)

    def note(self, size: int, ms: float) -> None:
        """Note that *size* bytes, > 0, were saved in *ms* milliseconds."""
        self._seen.append((size, ms))

    def expected_ms(self, size: int) -> float | None:
        """Return the expected time to save *size* bytes; milliseconds, None before the first save.

        It is that of the slowest of the larger saves: a small one says little about a large one.
        """
        if not self._seen:
            return None
        largest = max(seen for seen, _ in self._seen)
        known = [(seen, ms) for seen, ms in self._seen if 2 * seen >= min(size, largest)]
        return max(ms * max(size / seen, 1.0) for seen, ms in known)


@dataclass(slots=True)
class Collisions:
    """Requests that met a long save.

    Attributes:
        requests: Number of requests that have ended.
        met: Number of requests that arrived during a long save.
    """

    requests: int = 0
    met: int = 0

    @property
    def allow_long(self) -> bool:
        """True if one more request may meet a long save."""
        return self.met + 1 <= _MET_SHARE * (self.requests + _FREE_REQUESTS)


def quiet_s(save_ms: float | None, collisions: Collisions) -> float | None:
    """Return the idle time before a save; seconds, None if it must not start.

    Args:
        save_ms: Expected length of the save; None if it is unknown.
        collisions: Requests that met long saves so far.
    """
    if save_ms is not None and save_ms <= SHORT_SAVE_MS:
        return _QUIET_S
    if not collisions.allow_long:
        return None
    return max(_LONG_QUIET_S, _QUIET_FACTOR * (save_ms or 0.0) / 1000)


def is_due(
    tokens: int, grown: int, record: Effectiveness, *, save_ms: float | None,
    budget_share: float, min_tokens: int,
) -> bool:  # fmt: skip
    """Return True if a conversation has grown enough to be saved.

    Reading the growth again must cost more than the save. The less of the write budget is left, the
    larger the growth must be; with an empty one the bytes written stay below three times the size.

    Args:
        tokens: Its tokens.
        grown: Tokens among them that no file has.
        record: Measurements of the server.
        save_ms: Expected length of the save; None if it is unknown.
        budget_share: Share of the write budget that is left, 0 to 1.
        min_tokens: Smaller conversations are never saved.
    """
    if tokens < max(min_tokens, 1) or not record.pays(tokens):
        return False
    gain = record.gain_ms(grown)
    if gain is not None and save_ms is not None and gain < save_ms:
        return False
    return grown >= max(_LEAST_GROWTH, _GROWTH_SHARE * (1 - budget_share) ** 2 * tokens)
