"""Incremental parser of the HTTP/1.1 requests of one client.

llhttp, strict as it is by default, rejects ambiguous framing; what it lets pass and this server
does not is rejected here (codings besides chunked, versions, targets, Host, sizes).

The parser makes a `RequestCycle` of each request when its head is complete, gives it to the
connection, and feeds it the body. It decides nothing about order, and never writes. After `error`
is set, nothing more may be parsed: what comes behind a rejected request is not a request.
"""

from __future__ import annotations

import asyncio
from typing import Any, Protocol, cast
from urllib.parse import unquote

import httptools

from ..repeated_head import TRIES, RepeatedHead, parts_of_head
from ..request_id import new_request_id, request_id_of
from .hangup import address_of
from .request_cycle import ClientConnection, RequestCycle
from .validation import (
    SPECIAL,
    BadRequestError,
    H1Limits,
    check_sizes,
    inspect_fields,
    origin_form,
    status_of_error,
)

_VERSIONS = frozenset({"1.0", "1.1"})
_METHODS = {b"GET": "GET", b"POST": "POST", b"HEAD": "HEAD", b"OPTIONS": "OPTIONS"}  # the usual
_ASGI = {"version": "3.0", "spec_version": "2.4"}
_END_OF_HEAD = b"\r\n\r\n"

Fields = list[tuple[bytes, bytes]]


class RequestReceiver(ClientConnection, Protocol):
    """Connection that the parsed requests belong to."""

    def enqueue(self, cycle: RequestCycle) -> None:
        """Serve *cycle*, whose head is complete, when its turn comes."""


class RepeatedRequest(RepeatedHead):
    """Head of a request that the client may send again.

    Attributes:
        scope: ASGI scope of such a request; its fields and its state are those of the first one.
    """

    __slots__ = ("scope",)

    def __init__(self, before: bytes, after: bytes, scope: dict[str, Any]) -> None:
        super().__init__(before, after, scope["headers"])
        self.scope = scope


class RequestParser:
    """Parser of one connection, and the callbacks of llhttp.

    A request with the head of an earlier one is not parsed again; see `repeated_head`. That is
    possible only between two requests, when llhttp has seen no byte of the next one.

    Attributes:
        incoming: The request whose body is being received; None between requests.
        error: Status to reject the input with; 0 while nothing is wrong.
        upgrade_head: Head of a request that asks for another protocol, to be parsed again, by
            this parser or by another; None without one.
        hands_over: The connection can be handed over for that request; otherwise its head lacks
            ``Upgrade``, and it is an ordinary request.
        is_in_head: A head has begun and is not complete.
        head_since: When it began; loop time in seconds.
        is_unused: No head has been completed yet.
    """

    __slots__ = (
        "_accepts_upgrades", "_body_bytes", "_bytes_since_callback", "_client",
        "_connection", "_fields", "_is_between", "_is_completed", "_is_kept", "_limits", "_llhttp",
        "_loop", "_repeated", "_root_path", "_scheme", "_scope", "_server", "_special", "_state",
        "_target", "_tries", "error", "hands_over", "head_since", "incoming", "is_in_head",
        "is_unused", "upgrade_head",
    )  # fmt: skip

    def __init__(
        self,
        connection: RequestReceiver,
        limits: H1Limits,
        *,
        root_path: str,
        state: dict[str, Any] | None,
        accepts_upgrades: bool,
    ) -> None:
        """Prepare a parser.

        Args:
            connection: Takes the requests.
            limits: Sizes of a head.
            root_path: For the scope.
            state: For the scope; each request gets a copy.
            accepts_upgrades: The connection can be handed over to speak WebSocket.
        """
        self.incoming: RequestCycle | None = None
        self.error = 0
        self.upgrade_head: bytes | None = None
        self.hands_over = False
        self.is_in_head = False
        self.head_since = 0.0
        self.is_unused = True
        self._connection: RequestReceiver | None = connection
        self._loop = connection.loop
        self._limits = limits
        self._root_path, self._state = root_path, state
        self._accepts_upgrades = accepts_upgrades
        self._scheme = "http"
        self._server: tuple[str, int] | None = None
        self._client: tuple[str, int] | None = None
        self._llhttp = httptools.HttpRequestParser(self)
        self._target = b""
        self._fields: Fields = []
        self._special: Fields = []  # fields of the head that the server acts on
        # Bytes since a callback that matters: this bounds heads, trailers and chunk extensions.
        self._bytes_since_callback = 0
        self._repeated: RepeatedRequest | None = None
        self._tries = TRIES  # heads that are still remembered before one comes again
        self._is_between = True  # the last request has ended with the last byte that was parsed
        self._is_kept = False  # a client that sends one request only leaves nothing to remember
        # Of the data that is being parsed: the request it began, if that may be repeated; bytes of
        # bodies; and whether a request was completed.
        self._scope: dict[str, Any] | None = None
        self._body_bytes = 0
        self._is_completed = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the addresses for the scopes from *transport*."""
        self._scheme = "http" if transport.get_extra_info("ssl_object") is None else "https"
        self._server = address_of(transport, "sockname")
        self._client = address_of(transport, "peername")

    def parse(self, data: bytes) -> int:
        """Parse *data*, and return how many of its bytes were used.

        All are, unless `upgrade_head` is set then. Sets `error` if the input is to be rejected.
        """
        was_between = self._is_between
        if was_between and self._repeated is not None:
            found = self._repeated.split(data)
            if found is not None:
                self._begin_again(self._repeated, found[0], found[1])
                return len(data)
        self._bytes_since_callback += len(data)
        self._body_bytes, self._is_between, self._is_completed = 0, False, False
        try:
            self._llhttp.feed_data(data)
        except httptools.HttpParserUpgrade as exc:
            self._bytes_since_callback = 0
            return int(exc.args[0])
        except httptools.HttpParserCallbackError:
            # Not its context: that is whatever else is being handled just now, if anything is.
            if not self.error:
                raise
        except httptools.HttpParserError:
            self.error = status_of_error(data)
        if self._bytes_since_callback > self._limits.header_bytes and not self.error:
            self.error = 431 if self._fields or not self.is_in_head else 414
        scope, self._scope = self._scope, None
        if self._is_completed:
            self._note_end(data, scope, was_between)
        if self.is_in_head and not self.head_since:
            self.head_since = self._loop.time()
        return len(data)

    def _note_end(self, data: bytes, scope: dict[str, Any] | None, was_between: bool) -> None:
        """Note whether a request has ended with *data*, and remember its head.

        Args:
            data: Was parsed; a request was completed in it.
            scope: Of a request that began in it and may be repeated; None without one.
            was_between: Another one had ended right before.
        """
        head_bytes = len(data) - self._body_bytes
        if not was_between:
            self._is_between = not head_bytes
        elif data.find(_END_OF_HEAD) + len(_END_OF_HEAD) == head_bytes:
            self._is_between = True
            if scope is not None and self._tries and self._body_bytes:
                self._tries -= 1
                parts = parts_of_head(data, head_bytes)
                if parts is not None:
                    self._repeated = RepeatedRequest(parts[0], parts[1], scope.copy())

    def take_upgrade_head(self) -> bytes:
        """Return `upgrade_head`, and expect a new request."""
        head, self.upgrade_head = self.upgrade_head or b"", None
        self._llhttp = httptools.HttpRequestParser(self)
        return head

    def close(self) -> None:
        """Release llhttp and the connection, both of which refer to the parser; parse no more."""
        self._llhttp = cast("httptools.HttpRequestParser", None)
        self._connection = None

    def request_id(self) -> bytes:
        """Return the id of the request whose head was read last; a new one unless it has one."""
        special = self._special
        if len(special) == 1 and special[0][0] == b"host":  # as nearly always
            return new_request_id()
        return request_id_of(special)

    # -- callbacks of llhttp -----------------------------------------------------------

    def on_url(self, target: bytes) -> None:
        """Begin a head; its target may come in pieces."""
        if self.is_in_head:
            self._target += target
        else:
            self._target = target
            self._fields = []
            self._special = []
            self.is_in_head = True
            self.head_since = 0.0  # set if the head is not complete at once

    def on_header(self, name: bytes, value: bytes) -> None:
        """Collect a field; those of a trailer are never looked at."""
        field = (name.lower(), value.rstrip(b" \t"))
        self._fields.append(field)
        if field[0] in SPECIAL:
            self._special.append(field)

    def on_headers_complete(self) -> None:
        """Check a head, and begin its request."""
        try:
            self._is_kept = not self.is_unused
            self.is_in_head = self.is_unused = False
            fields, target = self._fields, self._target
            limits = self._limits
            if (
                len(fields) + len(target) > limits.header_fields
                or self._bytes_since_callback > limits.header_bytes
            ):
                check_sizes(limits, target, fields, self._bytes_since_callback)
            self._fields = []
            self._bytes_since_callback = 0
            version = self._llhttp.get_http_version()
            if version not in _VERSIONS:
                raise BadRequestError(505, "unknown version")
            method = self._llhttp.get_method()
            if method == b"CONNECT":
                raise BadRequestError(405, "CONNECT")
            is_1_0 = version == "1.0"
            is_expecting = inspect_fields(self._special, is_1_0)
            if len(self._special) > 1 and self._llhttp.should_upgrade():
                self._note_upgrade(method, version, fields)
                return
            if target[:1] != b"/":
                target = origin_form(method, target, fields)
            if 35 in target or not target.isascii():  # 35 is "#": a number is found quicker
                raise BadRequestError(400, "odd target")
            self._begin(method, target, version, fields, is_expecting)
        except BadRequestError as error:
            self.error = error.status
            raise

    def on_body(self, data: bytes) -> None:
        """Give a piece of a body to its request."""
        self._bytes_since_callback = 0
        self._body_bytes += len(data)
        if self.incoming is not None:
            self.incoming.feed(data)

    def on_message_complete(self) -> None:
        """Note that a request is complete."""
        self._bytes_since_callback = 0
        self._is_completed = True
        cycle, self.incoming = self.incoming, None
        if cycle is not None:
            cycle.is_received = True
            if cycle.waiter is not None:
                cycle.wake()

    # -- what a head becomes -----------------------------------------------------------

    def _begin(
        self, method: bytes, target: bytes, version: str, fields: Fields, is_expecting: bool
    ) -> None:
        raw_path, _, query = target.partition(b"?")
        path = raw_path.decode("ascii")
        scope: dict[str, Any] = {
            "type": "http",
            "asgi": _ASGI,
            "http_version": version,
            "method": _METHODS.get(method) or method.decode("ascii"),
            "scheme": self._scheme,
            "path": unquote(path) if "%" in path else path,
            "raw_path": raw_path,
            "query_string": query,
            "root_path": self._root_path,
            "headers": fields,
            "server": self._server,
            "client": self._client,
        }
        if self._state is not None:
            scope["state"] = self._state.copy()
        keep_alive = self._llhttp.should_keep_alive()
        if not keep_alive:  # llhttp rejects what comes behind such a request
            self._repeated, self._tries = None, 0
        is_usual = keep_alive and version == "1.1" and len(self._special) == 1  # which is Host
        if is_usual and self._is_kept:
            self._scope = scope
        connection = self._connection
        assert connection is not None, "nothing is parsed behind the end"
        cycle = self.incoming = RequestCycle(
            connection,
            scope,
            request_id=self.request_id(),
            keep_alive=keep_alive,
            is_1_0=version == "1.0",
            is_expecting=is_expecting,
        )
        self._special.clear()  # what is rejected behind this has another id
        connection.enqueue(cycle)

    def _begin_again(self, repeated: RepeatedRequest, length: bytes, body: bytes) -> None:
        """Begin a complete request with *body* whose head came before."""
        self._tries = TRIES
        scope = repeated.scope.copy()
        scope["headers"] = repeated.fields.with_length(length)
        if self._state is not None:
            scope["state"] = self._state.copy()
        connection = self._connection
        assert connection is not None, "nothing is parsed behind the end"
        cycle = RequestCycle(
            connection, scope, request_id=new_request_id(), keep_alive=True, is_1_0=False,
            is_expecting=False,
        )  # fmt: skip
        cycle.repeated_head = repeated
        if body:
            cycle.feed(body)
        cycle.is_received = True
        connection.enqueue(cycle)

    def _note_upgrade(self, method: bytes, version: str, fields: Fields) -> None:
        """Keep a head that asks for another protocol, in the form it will be parsed in again."""
        asked = b",".join(value for name, value in fields if name == b"upgrade").lower()
        wanted = {token.strip() for token in asked.split(b",")}
        has_body = any(
            (name == b"content-length" and value.strip(b"0")) or name == b"transfer-encoding"
            for name, value in fields
        )
        self.hands_over = self._accepts_upgrades and (
            wanted == {b"websocket"} and method == b"GET" and not has_body
        )
        self.upgrade_head = b"%b %b HTTP/%b\r\n%b\r\n" % (
            method,
            self._target,
            version.encode("ascii"),
            b"".join(
                b"%b: %b\r\n" % field
                for field in fields
                if self.hands_over or field[0] != b"upgrade"
            ),
        )
