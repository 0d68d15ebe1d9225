"""Parser of responses: pure, fed with the bytes of one connection, fills in one response at a time.

It decides what the head means for the connection: whether the response has a body, where the body
ends, and whether the connection can carry another request.
"""

from __future__ import annotations

import httptools

from .response import UpstreamResponse

_INTERIM_MAX = 16  # 1xx answers before one that counts; a flood of them is an attack


class _BrokenError(Exception):
    """Raised inside the parser's callbacks; says what is wrong with the answer."""


class ResponseParser:
    """The responses of one connection, one after another.

    Attributes:
        response: The one that is being filled in; None between two exchanges.
        has_news: Something came that its reader waits for; reset by the caller.
        is_complete: The whole response is here.
        has_surplus: Bytes came behind a complete response: the connection is unusable.
        can_keep: After a complete response: the connection can carry another request.
    """

    __slots__ = (
        "_ends_at_eof",
        "_head_bytes",
        "_interim",
        "_is_head",
        "_is_raw",
        "_keeps_events",
        "_may_keep",
        "_most_header_bytes",
        "_parser",
        "_request",
        "can_keep",
        "has_news",
        "has_surplus",
        "is_complete",
        "response",
    )

    def __init__(self, max_header_bytes: int, *, keeps_events: bool) -> None:
        """Prepare a parser for a new connection.

        Args:
            max_header_bytes: Largest head, and largest trailer, of a response.
            keeps_events: A connection that carried a stream of events can carry another request.
        """
        self.response: UpstreamResponse | None = None
        self.has_news = self.is_complete = self.has_surplus = self.can_keep = False
        self._most_header_bytes = max_header_bytes
        self._keeps_events = keeps_events
        self._parser = httptools.HttpResponseParser(self)
        self._request = b""
        self._is_head = self._is_raw = self._ends_at_eof = False
        self._may_keep = True
        self._interim = self._head_bytes = 0

    def start(self, response: UpstreamResponse, request: bytes, *, is_head: bool) -> None:
        """Fill in *response* from now on.

        Args:
            response: A new one.
            request: Head of the request.
            is_head: Its method is HEAD: the response has no body, whatever its fields say.
        """
        if self._is_head:  # the parser waits for a body that does not come
            self._parser = httptools.HttpResponseParser(self)
        self.response, self._request, self._is_head = response, request, is_head
        self.has_news = self.is_complete = False
        self._interim = self._head_bytes = 0

    def feed(self, data: bytes) -> str | None:
        """Parse *data*; return what is wrong with the response, or None.

        There must be a response.
        """
        if self._is_raw:
            self.on_body(data)
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
        if self.has_news:
            self._head_bytes = 0
        elif self._head_bytes > self._most_header_bytes:
            # Long heads, and what no callback reports: trailers, chunk extensions.
            return f"more than {self._most_header_bytes} bytes of header fields"
        return None

    @property
    def is_unanswered(self) -> bool:
        """True if not one byte of a response has come in this exchange."""
        return not self._head_bytes and (self.response is None or not self.response.status)

    @property
    def is_complete_at_eof(self) -> bool:
        """True if the end of the connection is that of the body, not a loss of the rest."""
        response = self.response
        return self._is_raw or (response is not None and response.status > 0 and self._ends_at_eof)

    # -- what httptools calls -------------------------------------------------------------

    def on_message_begin(self) -> None:
        """Notice an answer behind the answer."""
        if self.is_complete:
            self.has_surplus = True

    def on_status(self, reason: bytes) -> None:
        """Collect the reason phrase, which may come in pieces."""
        response = self.response
        if response is not None and not self.is_complete:
            response.reason += reason

    def on_header(self, name: bytes, value: bytes) -> None:
        """Collect a field of the head; those behind the body are trailers, and dropped."""
        response = self.response
        if response is not None and not response.status:
            response.headers.append((name, value))

    def on_headers_complete(self) -> None:
        """Judge the head: interim, unusable, without a body, or the beginning of one."""
        response = self.response
        if response is None or self.is_complete:
            return
        status = self._parser.get_status_code()
        if not 100 <= status <= 599:
            raise _BrokenError(f"status {status}")
        if self._head_bytes > self._most_header_bytes:
            size = sum(len(name) + len(value) + 4 for name, value in response.headers)
            if size > self._most_header_bytes:
                raise _BrokenError(f"{size} bytes of header fields")
        if status < 200:
            self._on_interim(status, response)
            return
        chunked = events = False
        for name, value in response.headers:
            if len(name) == 14 and name.lower() == b"content-length":
                response.content_length = int(value)
            elif len(name) == 17 and name.lower() == b"transfer-encoding":
                if chunked or value.lower() != b"chunked":
                    raise _BrokenError(f"transfer coding {value!r}")
                chunked = True
            elif len(name) == 12 and name.lower() == b"content-type":
                events = value[:17].lower() == b"text/event-stream"
        # llama-server announces Keep-Alive, and closes behind a stream: who comes next is lost.
        self._may_keep = not events or self._keeps_events
        self._ends_at_eof = response.content_length is None and not chunked
        response.status = status
        self.has_news = True
        if self._is_head:
            self.is_complete = True
            self.can_keep = self._may_keep and self._parser.should_keep_alive()

    def _on_interim(self, status: int, response: UpstreamResponse) -> None:
        if status == 101:
            if not (b"\r\nupgrade:" in self._request.lower() and self._parser.should_upgrade()):
                raise _BrokenError("an upgrade that was not asked for")
            self._is_raw = self.has_news = response.upgraded = True
            response.status = status
            return
        self._interim += 1
        if self._interim > _INTERIM_MAX:
            raise _BrokenError(f"more than {_INTERIM_MAX} interim answers")
        response.reason = b""
        response.headers.clear()

    def on_body(self, data: bytes) -> None:
        """Keep a piece of the body for the reader."""
        response = self.response
        if response is None or self.is_complete:
            self.has_surplus = True
            return
        response.chunks.append(data)
        size = len(data)
        response.buffered_bytes += size
        response.bytes_received += size
        self.has_news = True

    def on_message_complete(self) -> None:
        """Note the clean end of the answer."""
        response = self.response
        if response is not None and response.status and not (self.is_complete or self._is_raw):
            self.is_complete = self.has_news = True
            self.can_keep = self._may_keep and self._parser.should_keep_alive()
