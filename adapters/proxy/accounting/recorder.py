"""Writes down what became of requests, when their answers are on their way.

Tokens are read from the ends of the answer, a row goes to the store, a capture is kept, counters
count, and a line goes to the log. All at once: records that waited for their turn were older than
the collector's youngest generation, which then went through all of them again and again.
"""

from __future__ import annotations

import json
from typing import Protocol

from ....runtime import LogRing
from ...store.activity import ActivityRow, ActivityStore
from ..event_bus import EventBus
from .access_log import access_log_line
from .captures import Captures
from .request_record import RequestRecord, metadata_of
from .token_usage import TokenUsage, decoded, error_of, tokens_of


class Counting(Protocol):
    """Counts requests; see ``counters.Counters``."""

    def count(self, exchange: RequestRecord, tokens: TokenUsage) -> None:
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
    """

    def __init__(
        self, store: ActivityStore | None, captures: Captures, counters: Counting, hub: EventBus,
        log: LogRing,
    ) -> None:  # fmt: skip
        self._store, self._captures, self._counters = store, captures, counters
        self._hub, self._log = hub, log
        self._number = 0

    def take(self, exchange: RequestRecord) -> None:
        """Write down a finished exchange; never waits."""
        body = response_body(exchange)
        if exchange.status == 200 and body:
            is_events = exchange.content_type.startswith(b"text/event-stream")
            tokens = tokens_of(body, is_events=is_events, is_whole=exchange.is_whole)
        else:
            tokens = TokenUsage()
        self._counters.count(exchange, tokens)
        if not exchange.is_metered:
            return
        number = self._next_number()
        self._captures.take(number, exchange)
        if self._store is not None:
            self._store.put(activity_row(number, exchange, tokens, body))
            self._hub.publish("activity", {"id": number})
        self._log.line(access_log_line(exchange))

    def _next_number(self) -> int:
        if self._store is not None:
            return self._store.next_id()
        self._number += 1
        return self._number


def response_body(exchange: RequestRecord) -> bytes | None:
    """Return the answer's body, or its ends, unpacked; None where it cannot be read."""
    encoding = b""
    for name, value in exchange.answer_headers:
        if name == b"content-encoding":
            encoding = value
            break
    if exchange.is_whole:
        body = b"".join(exchange.body_chunks)
        return decoded(body, encoding) if encoding else body
    if encoding:
        return None
    return b"".join([exchange.first_chunk, b"\n", *exchange.body_chunks])


def activity_row(
    number: int, exchange: RequestRecord, tokens: TokenUsage, body: bytes | None
) -> ActivityRow:
    """Return the row for *exchange*."""
    error, status, started = exchange.error, exchange.status, exchange.started
    if not error and body is None:
        error = "the answer's Content-Encoding cannot be read here"
    elif not error and status != 200:
        error = error_of(status, body or b"")
    took_ms = (exchange.ended - started) * 1000
    admitted, head = exchange.admitted, exchange.head
    return ActivityRow(  # by place: in the order of its fields
        number, round(exchange.at * 1000), exchange.model, exchange.path,
        exchange.content_type.decode("latin-1"), status, tokens.cached, tokens.drafted,
        tokens.accepted, tokens.prompt, tokens.completion, tokens.read_rate, tokens.write_rate,
        round(max(took_ms, tokens.server_ms)),
        round((admitted - started) * 1000) if admitted else 0,
        round((head - started) * 1000) if head else 0,
        error[:500], _metadata_text(exchange),
    )  # fmt: skip


def _metadata_text(exchange: RequestRecord) -> str:
    if not exchange.selector:
        return f'{{"fifo_priority": "{exchange.priority}"}}'  # as nearly all have it
    return json.dumps(metadata_of(exchange), ensure_ascii=False)
