"""HTTP/1.1 response parser: pure, fed with the bytes of one connection, one response at a time.

It decides what the headers mean for the connection: whether the response has a body, where the body
ends, and whether the connection can carry another request.
"""

from __future__ import annotations

from typing import cast

import httptools

from ..repeated_head import TRIES, Fields, RepeatedHead, parts_of_head
from .response import UpstreamResponse

_MAX_INTERIM = 16  # interim responses (1xx) before the final one; more of them are an attack


class _InvalidResponseError(Exception):
    """Raised in the parser's callbacks; the text says what is wrong with the response."""


class RepeatedResponse(RepeatedHead):
    """Head of a response that the upstream may send again.

    Attributes:
        status: Status code.
        reason: Reason phrase.
    """

    __slots__ = ("reason", "status")

    def __init__(
        self, before: bytes, after: bytes, fields: Fields, status: int, reason: bytes
    ) -> None:
        super().__init__(before, after, fields)
        self.status, self.reason = status, reason


class RepeatedHeads:
    """Head of the last responses of an upstream, over all of its connections.

    Attributes:
        head: The head; None before a response whose head may come again.
        tries: Heads that are still remembered before one comes again.
    """

    __slots__ = ("head", "tries")

    def __init__(self) -> None:
        self.head: RepeatedResponse | None = None
        self.tries = TRIES


class ResponseParser:
    """Parser of the responses on one connection.

    A response with the head of an earlier one is not parsed again; see `repeated_head`.

    Attributes:
        response: Response that is being filled in; None between two exchanges.
        has_progress: The reader must be notified; reset by the caller.
        is_complete: The whole response has arrived.
        has_surplus: Bytes arrived after a complete response, so the connection is unusable.
        can_keep: The connection can carry another request; valid once `is_complete`.
        is_between_chunks: The next byte begins a chunk of a chunked body.
        may_keep: As `can_keep`, unless the upstream closes behind an event stream.
    """

    __slots__ = (
        "_ends_at_eof",
        "_head_bytes",
        "_heads",
        "_interim",
        "_is_head",
        "_is_kept",
        "_is_raw",
        "_keeps_events",
        "_most_header_bytes",
        "_parser",
        "_request",
        "can_keep",
        "has_progress",
        "has_surplus",
        "is_between_chunks",
        "is_complete",
        "may_keep",
        "response",
    )

    def __init__(self, max_header_bytes: int, heads: RepeatedHeads, *, keeps_events: bool) -> None:
        """Prepare a parser for a new connection.

        Args:
            max_header_bytes: Maximum size of the headers, and of the trailers, of a response.
            heads: Remembers the heads of the upstream's responses.
            keeps_events: A connection that carried an event stream can carry another request.
        """
        self.response: UpstreamResponse | None = None
        self.has_progress = self.is_complete = self.has_surplus = False
        self.can_keep = self.may_keep = self.is_between_chunks = False
        self._most_header_bytes = max_header_bytes
        self._heads = heads
        self._keeps_events = keeps_events
        self._parser = httptools.HttpResponseParser(self)
        self._request = b""
        self._is_head = self._is_raw = self._ends_at_eof = False
        self._is_kept = True
        self._interim = self._head_bytes = 0

    def start(self, response: UpstreamResponse, request: bytes, *, is_head: bool) -> None:
        """Start an exchange: the next bytes are those of *response*.

        Args:
            response: A new response.
            request: Request line and headers, with the empty line.
            is_head: The method is HEAD, so the response has no body whatever its headers say.
        """
        if self._is_head:  # httptools still waits for the body of the response to HEAD
            self._parser = httptools.HttpResponseParser(self)
        self.response, self._request, self._is_head = response, request, is_head
        self.has_progress = self.is_complete = self.is_between_chunks = False
        self._interim = self._head_bytes = 0

    def feed(self, data: bytes) -> str | None:
        """Parse *data*, bytes of `response`; return what is wrong with it, or None."""
        if self._is_raw:
            self.on_body(data)
            return None
        response, is_first = self.response, False
        if response is not None and not response.status:
            is_first = not self._head_bytes and not self._is_head
            head = self._heads.head
            found = head.split(data) if is_first and head is not None else None
            if head is not None and found is not None:
                self._fill(response, head, found[0], found[1])
                return None
        self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as exc:
            if len(data) > exc.args[0]:
                self.on_body(data[exc.args[0] :])
        except httptools.HttpParserError as exc:
            if not self.is_complete:
                return str(exc.__context__ or exc)
            self.has_surplus = True
        # A size that is incomplete has no callback yet, and no line feed.
        self.is_between_chunks = self.is_between_chunks and data[-1:] == b"\n"
        if self.has_progress:
            self._head_bytes = 0
        elif self._head_bytes > self._most_header_bytes:
            # Headers, and what httptools reports to no callback: trailers and chunk extensions.
            return f"more than {self._most_header_bytes} bytes of header fields"
        if is_first and self.is_complete and self.can_keep and response is not None:
            self._remember(response, data)
        return None

    def _fill(
        self, response: UpstreamResponse, head: RepeatedResponse, length: bytes, body: bytes
    ) -> None:
        """Complete *response*, whose head came before, with *body*."""
        self._heads.tries = TRIES
        response.status, response.reason, response.repeated_head = head.status, head.reason, head
        response.headers = head.fields.with_length(length)
        response.content_length = len(body)
        self._ends_at_eof = False
        if body:
            response.add(body)
        self.has_progress = self.is_complete = self.can_keep = self.may_keep = True

    def _remember(self, response: UpstreamResponse, data: bytes) -> None:
        """Remember the head of *response*, which came complete as *data*."""
        heads, size = self._heads, response.bytes_received
        if self.has_surplus or self._interim or not size or not heads.tries:
            return
        heads.tries -= 1
        parts = parts_of_head(data, len(data) - size)
        if parts is not None:
            fields, reason = response.headers, response.reason
            heads.head = RepeatedResponse(parts[0], parts[1], fields, response.status, reason)

    def close(self) -> None:
        """Release httptools' parser, which refers to this one; parse no more."""
        self.response = None
        self._parser = cast("httptools.HttpResponseParser", None)

    @property
    def is_unanswered(self) -> bool:
        """True if not one byte of a response has arrived in this exchange."""
        return not self._head_bytes and (self.response is None or not self.response.status)

    @property
    def is_complete_at_eof(self) -> bool:
        """True if the end of the connection completes the response."""
        response = self.response
        return self._is_raw or (response is not None and response.status > 0 and self._ends_at_eof)

    # -- called by httptools --------------------------------------------------------------

    def on_message_begin(self) -> None:
        """Detect a second response to the same request."""
        if self.is_complete:
            self.has_surplus = True

    def on_status(self, reason: bytes) -> None:
        """Collect the reason phrase, which may arrive in several parts."""
        response = self.response
        if response is not None and not self.is_complete:
            response.reason += reason

    def on_header(self, name: bytes, value: bytes) -> None:
        """Collect a header field; fields after the body are trailers and are dropped."""
        response = self.response
        if response is not None and not response.status:
            response.headers.append((name, value))

    def on_headers_complete(self) -> None:
        """Decide what the headers mean: interim or final, with a body or without, or invalid."""
        response = self.response
        if response is None or self.is_complete:
            return
        status = self._parser.get_status_code()
        if not 100 <= status <= 599:
            raise _InvalidResponseError(f"status {status}")
        if self._head_bytes > self._most_header_bytes:
            size = sum(len(name) + len(value) + 4 for name, value in response.headers)
            if size > self._most_header_bytes:
                raise _InvalidResponseError(f"{size} bytes of header fields")
        if status < 200:
            self._on_interim(status, response)
            return
        chunked = events = False
        for name, value in response.headers:
            if len(name) == 14 and name.lower() == b"content-length":
                response.content_length = int(value)
            elif len(name) == 17 and name.lower() == b"transfer-encoding":
                if chunked or value.lower() != b"chunked":
                    raise _InvalidResponseError(f"transfer coding {value!r}")
                chunked = True
            elif len(name) == 12 and name.lower() == b"content-type":
                events = value[:17].lower() == b"text/event-stream"
        # llama-server announces Keep-Alive but closes after an event stream: the next request on
        # the connection would be lost. `stream_watch` observes whether an upstream does so.
        self._is_kept = not events or self._keeps_events
        self._ends_at_eof = response.content_length is None and not chunked
        self.is_between_chunks = chunked and not self._is_head
        response.status = status
        self.has_progress = True
        if self._is_head:
            self.is_complete = True
            self.may_keep = self._parser.should_keep_alive()
            self.can_keep = self._is_kept and self.may_keep

    def _on_interim(self, status: int, response: UpstreamResponse) -> None:
        if status == 101:
            if not (b"\r\nupgrade:" in self._request.lower() and self._parser.should_upgrade()):
                raise _InvalidResponseError("an upgrade that the request did not ask for")
            self._is_raw = self.has_progress = response.upgraded = True
            response.status = status
            return
        self._interim += 1
        if self._interim > _MAX_INTERIM:
            raise _InvalidResponseError(f"more than {_MAX_INTERIM} interim responses")
        response.reason = b""
        response.headers.clear()

    def on_chunk_header(self) -> None:
        """Note that a chunk has begun, which may be the last one."""
        self.is_between_chunks = False

    def on_chunk_complete(self) -> None:
        """Note that a chunk has ended."""
        self.is_between_chunks = not self.is_complete

    def on_body(self, data: bytes) -> None:
        """Add a chunk of the body."""
        response = self.response
        if response is None or self.is_complete:
            self.has_surplus = True
            return
        response.add(data)
        self.has_progress = True

    def on_message_complete(self) -> None:
        """Note that the response is complete."""
        response = self.response
        self.is_between_chunks = False
        if response is not None and response.status and not (self.is_complete or self._is_raw):
            self.is_complete = self.has_progress = True
            self.may_keep = self._parser.should_keep_alive()
            self.can_keep = self._is_kept and self.may_keep
