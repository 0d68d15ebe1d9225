"""Writes down what became of requests: later, in batches, away from their way.

A request only leaves its record in a queue. A moment later, tokens are read from the ends of its
answer, a row goes to the store, a capture is kept, counters count, and a line goes to the log.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Protocol

from ...runtime import LogRing
from ..store.activity import ActivityRow, ActivityStore
from .captures import Captures
from .exchange import Exchange
from .hub import Hub
from .shown_fields import metadata_of
from .tokens import Tokens, decoded, error_of, tokens_of

_PAUSE_S = 0.05
_BATCH = 200  # rows in one go; others want to run between them
_WAITING_MAX = 10_000
_NO_LINES = {code: f"\\x{code:02x}" for code in (*range(32), 127, 0x85, 0x2028, 0x2029)}


class Counting(Protocol):
    """Counts requests; see ``counters.Counters``."""

    def count(self, exchange: Exchange, tokens: Tokens) -> None:
        """Count one finished request."""
        ...


class Recorder:
    """Takes finished exchanges.

    Args:
        store: Where rows go; None: nowhere.
        captures: Where whole requests go.
        counters: What counts.
        hub: Who is told of each row.
        log: Where a line for each goes.

    Attributes:
        dropped: Exchanges that came too fast and were not written down.
    """

    def __init__(
        self, store: ActivityStore | None, captures: Captures, counters: Counting, hub: Hub,
        log: LogRing,
    ) -> None:  # fmt: skip
        self._store, self._captures, self._counters = store, captures, counters
        self._hub, self._log = hub, log
        self._waiting: deque[Exchange] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._number = 0
        self.dropped = 0

    def take(self, exchange: Exchange) -> None:
        """Take a finished exchange; never waits."""
        if len(self._waiting) >= _WAITING_MAX:
            self.dropped += 1
            return
        self._waiting.append(exchange)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_PAUSE_S, self._drain)

    def flush(self) -> None:
        """Write down all that waits, now."""
        while self._waiting:
            self._write(self._waiting.popleft())
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _drain(self) -> None:
        for _ in range(min(_BATCH, len(self._waiting))):
            self._write(self._waiting.popleft())
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(0.001, self._drain) if self._waiting else None

    def _write(self, exchange: Exchange) -> None:
        body = answer_of(exchange)
        tokens = Tokens()
        if exchange.status == 200:
            is_events = exchange.content_type.startswith(b"text/event-stream")
            tokens = tokens_of(body or b"", is_events=is_events, is_whole=exchange.is_whole)
        self._counters.count(exchange, tokens)
        if not exchange.is_metered:
            return
        number = self._next_number()
        self._captures.take(number, exchange)
        if self._store is not None:
            self._store.put(row_of(number, exchange, tokens, body))
            self._hub.publish("activity", {"id": number})
        self._log.line(line_of(exchange))

    def _next_number(self) -> int:
        if self._store is not None:
            return self._store.next_id()
        self._number += 1
        return self._number


def answer_of(exchange: Exchange) -> bytes | None:
    """Return the answer's body, or its ends, unpacked; None where it cannot be read."""
    encoding = next((v for n, v in exchange.answer_headers if n == b"content-encoding"), b"")
    pieces = exchange.pieces if exchange.is_whole else [exchange.first, b"\n", *exchange.pieces]
    if encoding and not exchange.is_whole:
        return None
    return decoded(b"".join(pieces), encoding)


def row_of(number: int, exchange: Exchange, tokens: Tokens, body: bytes | None) -> ActivityRow:
    """Return the row for *exchange*."""
    error = exchange.error
    if not error and body is None:
        error = "the answer's Content-Encoding cannot be read here"
    elif not error and exchange.status != 200:
        error = error_of(exchange.status, body or b"")
    took_ms = (exchange.ended - exchange.started) * 1000
    return ActivityRow(
        id=number,
        time=round(exchange.at * 1000),
        model=exchange.model,
        req_path=exchange.path,
        resp_content_type=exchange.content_type.decode("latin-1"),
        resp_status_code=exchange.status,
        cached=tokens.cached,
        drafted=tokens.drafted,
        accepted=tokens.accepted,
        prompt=tokens.read,
        generated=tokens.written,
        prompt_speed=tokens.read_rate,
        gen_speed=tokens.write_rate,
        duration=round(max(took_ms, tokens.server_ms)),
        waited=_since(exchange, exchange.admitted),
        first_byte=_since(exchange, exchange.head),
        error_msg=error[:500],
        metadata=metadata_of(exchange),
    )


def _since(exchange: Exchange, moment: float) -> int:
    return round((moment - exchange.started) * 1000) if moment else 0


def line_of(exchange: Exchange) -> str:
    """Return the line of the access log for *exchange*; what clients sent cannot break it."""
    request = exchange.request
    agent = (request.header(b"user-agent") or b"").decode("latin-1")
    target = request.path_bytes.decode("latin-1")  # a query may hold secrets
    version = request.scope.get("http_version", "")
    took = exchange.ended - exchange.started
    text = (
        f'Request {request.client} "{request.method} {target} HTTP/{version}" {exchange.status} '
        f'{exchange.sent_bytes} "{agent}" {took:.3f}s'
    )
    return text.translate(_NO_LINES)
