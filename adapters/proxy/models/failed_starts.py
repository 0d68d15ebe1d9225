"""Starts that failed a moment ago: the same request is not reason enough for another one.

The libraries that clients use repeat a request that failed, two to five times and some of them
whatever the response says. A large model takes a minute to fail, and evicts others each time.

A program that goes on doubles its pause each time: aider waits 0.25 s first and 32 s last. So each
repetition may be followed by a longer pause without a new start.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256

import msgspec

from ....dataclass import dataclass
from ....runtime import RequestError, StartError, Transition
from ..body.json_scan import Steps

REMEMBERED_S = 10.0  # libraries wait at most 8 s between two tries
GROWTH = 2.5  # times the last pause: programs double it and add to it at random
LONGEST_S = 90.0  # from the failure on; the last try of aider comes after 66 s
_MAX_REQUESTS = 256  # of a model
_STEP_BYTES = 1 << 20  # takes about 1 ms
_ORDERED_BYTES = 1 << 18  # 256 KiB of messages take 15 ms; longer ones are compared as they are


@dataclass(slots=True)
class _Failure:
    """One request whose start failed; times are seconds of the clock.

    Attributes:
        error: The error, without its traceback.
        failed_at: Time of the failure.
        asked_at: Time of the last repetition.
        until: When it is forgotten.
    """

    error: RequestError
    failed_at: float
    asked_at: float
    until: float


class FailedStarts:
    """Requests that a failed start was for, by model.

    Args:
        now: Returns the time in seconds, on any clock that never goes back.

    Attributes:
        epoch: Changes with each `forget` and `clear`.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._requests: dict[str, dict[bytes, _Failure]] = {}
        self.epoch = 0

    def __contains__(self, model: object) -> bool:
        """Return True if a request for *model* may be remembered."""
        return model in self._requests

    def error(self, model: str, digest: bytes) -> RequestError | None:
        """Return the error for a request whose start failed a moment ago.

        It is remembered for `REMEMBERED_S`, and after each repetition for `GROWTH` times the pause
        before it, but no longer than `LONGEST_S`.
        """
        self._drop_old(model)
        found = self._requests.get(model, {}).get(digest)
        if found is None:
            return None
        now = self._now()
        longer = min(now + GROWTH * (now - found.asked_at), found.failed_at + LONGEST_S)
        found.until, found.asked_at = max(found.until, longer), now
        return found.error

    def remember(self, model: str, digest: bytes, error: StartError) -> None:
        """Remember that the start for a request has failed."""
        self._drop_old(model)
        requests = self._requests.setdefault(model, {})
        requests.pop(digest, None)
        # Not the error itself: its traceback holds the body of the request.
        now = self._now()
        requests[digest] = _Failure(error.again(), now, now, now + REMEMBERED_S)
        if len(requests) > _MAX_REQUESTS:
            del requests[next(iter(requests))]

    def forget(self, model: str) -> None:
        """Forget the failures of *model*, which is loaded or unloaded explicitly."""
        self.epoch += 1
        self._requests.pop(model, None)

    def clear(self) -> None:
        """Forget all failures: the configuration has changed."""
        self.epoch += 1
        self._requests.clear()

    def on_transition(self, record: Transition) -> None:
        """Forget the failures of a model that is ready now; for ``Supervisor.listen``."""
        if record.target == "ready" and record.service in self._requests:
            self.forget(record.service)

    def _drop_old(self, model: str) -> None:
        requests, now = self._requests.get(model), self._now()
        if requests is None:
            return
        for digest in [key for key, each in requests.items() if each.until <= now]:
            del requests[digest]
        if not requests:
            del self._requests[model]


def comparable(body: bytes) -> bytes:
    """Return *body* with the keys of its JSON in order; unchanged if it is none, or large.

    Codex keeps some keys in a hash table, and sends them in another order with each repetition.
    """
    if len(body) > _ORDERED_BYTES:
        return body
    try:
        return msgspec.json.encode(msgspec.json.decode(body), order="sorted")
    except (msgspec.MsgspecError, RecursionError):
        return body


def digest_steps(client: str, method: bytes, target: bytes, body: bytes) -> Steps[bytes]:
    """Return the digest of a request, in bounded steps.

    Args:
        client: Its key or address.
        method: Such as ``POST``.
        target: Path and query.
        body: Complete.
    """
    found = sha256(b"\0".join((client.encode(), method, target, b"")))
    view = memoryview(body)
    for start in range(0, len(body), _STEP_BYTES):
        found.update(view[start : start + _STEP_BYTES])
        yield
    return found.digest()
