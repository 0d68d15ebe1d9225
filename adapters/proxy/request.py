"""One HTTP request: its headers, its body within limits, and the disconnect of its client.

Clients that disconnect while a model loads or generates are the normal case. The task that handles
the request is then cancelled, and releases what it has acquired while the exception propagates.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from io import BytesIO
from typing import Any
from urllib.parse import quote

from ..http1.asgi_types import Headers, Message, Receive, Scope, SendFullResponse, WriteBody
from ..http1.request_id import REQUEST_ID, request_id_of
from ..http1.server.extensions import FULL_BODY, FULL_RESPONSE, ON_DISCONNECT, WRITE_BODY
from .access.header_cache import CachedHeaders
from .access.refusal_log import RefusalLog
from .body.errors import BodyTooLargeError
from .body.memory_budget import BodyBudget
from .options import EVERYTHING, Access
from .routing import Route

log = logging.getLogger(__name__)

_WATCH_AFTER_S = 0.01  # to twice as long; most responses are sooner, and need no watcher
_MOST_DIGITS = 20  # of a Content-Length; int() raises an error at 4,300
_ENDLESS = 1 << 63
_UNCOUNTED_BYTES = 1 << 16  # smaller bodies take little memory, even of all waiting requests


class RequestAbortedError(Exception):
    """The client disconnected before it got its response."""


async def run_until_disconnect(request: Request, work: Coroutine[Any, Any, None]) -> None:
    """Run *work*, which serves *request*, and end it without an error if the client disconnects."""
    try:
        await work
    except Exception as error:
        if not _says_gone(error):
            raise
    except asyncio.CancelledError:
        if not request.is_gone:
            raise
        task = asyncio.current_task()
        if task is not None:
            task.uncancel()
    finally:
        request.unwatch()
        if request.body_bytes_reserved:
            request.release_body()


def _says_gone(error: BaseException) -> bool:
    """Return True if *error* only means a disconnect: since ASGI 2.4 `send` may raise then."""
    if isinstance(error, BaseExceptionGroup):
        return all(map(_says_gone, error.exceptions))
    return isinstance(error, RequestAbortedError | ConnectionError)


class _DisconnectWatchTimer:
    """Starts the disconnect watchers of requests that are still open after a while.

    All requests of an event loop share one timer: a timer for each costs as much as all steps of
    the chart for a request.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._new: set[Request] = set()  # added since the timer last fired
        self._old: set[Request] = set()
        self._is_armed = False

    def add(self, request: Request) -> None:
        """Watch *request* after `_WATCH_AFTER_S`, unless it is discarded before."""
        self._new.add(request)
        if not self._is_armed:
            self._is_armed = True
            self.loop.call_later(_WATCH_AFTER_S, self._look)

    def discard(self, request: Request) -> None:
        """Do not watch *request*."""
        self._new.discard(request)
        self._old.discard(request)

    def _look(self) -> None:
        due, self._old, self._new = self._old, self._new, set()
        for request in due:
            try:
                request._watch_now()
            except Exception:  # the others must be watched all the same
                log.exception("%s %s cannot be watched", request.method, request.path)
        self._is_armed = bool(self._old)
        if self._is_armed:
            self.loop.call_later(_WATCH_AFTER_S, self._look)


_watch_timer: _DisconnectWatchTimer | None = None


def _watch_timer_of(loop: asyncio.AbstractEventLoop) -> _DisconnectWatchTimer:
    global _watch_timer
    if _watch_timer is None or _watch_timer.loop is not loop:
        _watch_timer = _DisconnectWatchTimer(loop)
    return _watch_timer


class Request:
    """Headers and body of one HTTP request.

    Attributes:
        scope: The ASGI scope.
        method: Such as ``POST``.
        path: Decoded path.
        headers: As sent; shape (n, 2), names in lower case.
        is_gone: The client has disconnected.
        route: Its route; None before routing.
        path_suffix: What the ``*`` of the route's path stands for.
        access: What its API key allows.
        request_id: Its id, see `http1.request_id`; its response has it too.
        body_bytes_reserved: Bytes of the memory budget that its body takes; see `release_body`.
        cached_headers: Cached decisions about its headers; None before admission.
        refusals: Where a refusal of the request is logged; None where none is.
        send_full_response: Sends a complete response at once; the value of the ASGI extension
            ``FULL_RESPONSE``, None where the server has none.
        write_body: Sends a piece of the body at once; the value of the ASGI extension
            ``WRITE_BODY``, None where the server has none.
    """

    __slots__ = (
        "_ahead",
        "_budget",
        "_is_complete",
        "_receive",
        "_set_on_disconnect",
        "_take_body",
        "_task",
        "_watch_timer",
        "_watcher",
        "access",
        "body_bytes_reserved",
        "cached_headers",
        "headers",
        "is_gone",
        "method",
        "path",
        "path_suffix",
        "refusals",
        "request_id",
        "route",
        "scope",
        "send_full_response",
        "write_body",
    )  # fmt: skip

    def __init__(
        self, scope: Scope, receive: Receive, budget: BodyBudget | None = None, *,
        request_id: bytes = b"",
    ) -> None:  # fmt: skip
        """Begin a request.

        Args:
            scope: The ASGI scope.
            receive: Returns the next ASGI message.
            budget: Memory budget of request bodies; None means that they are not counted.
            request_id: Its id; empty takes that of the scope, or makes a new one.
        """
        self.scope = scope
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.headers: Headers = scope["headers"]
        self.is_gone = False
        self.route: Route | None = None
        self.path_suffix = ""
        self.access: Access = EVERYTHING
        self.body_bytes_reserved = 0
        self.refusals: RefusalLog | None = None
        self.cached_headers: CachedHeaders | None = None
        self.send_full_response: SendFullResponse | None = None
        self.write_body: WriteBody | None = None
        self._take_body: Callable[[], bytes | None] | None = None
        self._set_on_disconnect: Callable[[Callable[[], None] | None], None] | None = None
        extensions = scope.get("extensions")
        if extensions:
            self.use_extensions(extensions)
            request_id = request_id or extensions.get(REQUEST_ID) or b""
        self.request_id = request_id or request_id_of(self.headers)
        self._budget = budget
        self._receive = receive
        self._ahead: Message | None = None  # a body message that the watcher received
        self._is_complete = False
        self._task: asyncio.Task[object] | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._watch_timer: _DisconnectWatchTimer | None = None

    def use_extensions(self, extensions: Mapping[str, Any]) -> None:
        """Use what the server offers beyond ASGI; see `http1.server.extensions`."""
        self.send_full_response = extensions.get(FULL_RESPONSE)
        self.write_body = extensions.get(WRITE_BODY)
        self._take_body = extensions.get(FULL_BODY)

    def header(self, name: bytes) -> bytes | None:
        """Return the value of the first header *name* (in lower case), or None."""
        for key, value in self.headers:
            if key == name:
                return value
        return None

    @property
    def target(self) -> bytes:
        """Path and query as sent, with their percent-encoding."""
        query: bytes = self.scope.get("query_string") or b""
        return self.path_bytes + b"?" + query if query else self.path_bytes

    @property
    def path_bytes(self) -> bytes:
        """Path as sent, with its percent-encoding."""
        raw: bytes = self.scope.get("raw_path") or self.path.encode()
        end = raw.find(b"?")  # quicker than asking whether it is in there
        return raw if end < 0 else raw[:end]

    @property
    def query(self) -> bytes:
        """Query as sent, without the question mark."""
        found: bytes = self.scope.get("query_string") or b""
        return found

    @property
    def root_path(self) -> bytes:
        """Prefix of all URLs for the client, percent-encoded; empty unless one is set."""
        root: str = self.scope.get("root_path") or ""
        return quote(root).encode() if root else b""

    @property
    def client(self) -> str | None:
        """Address of the client, or None."""
        client = self.scope.get("client")
        if client is None:
            return None
        address: str = client[0]
        return address

    def declared_length(self) -> int | None:
        """Return the Content-Length, or None if it is missing or not a number."""
        value = self.header(b"content-length")
        if value is None or not value.isdigit():
            return None
        return int(value) if len(value) <= _MOST_DIGITS else _ENDLESS

    async def body(self, limit_bytes: int) -> bytes:
        """Read the complete body.

        Raises:
            BodyTooLargeError: The body is larger than *limit_bytes*; raised before it is read if
                the Content-Length says so.
            BodyBudgetError: The memory budget has no room for it.
            RequestAbortedError: The client disconnected before the end of the body.
        """
        declared = self.declared_length()
        if declared is not None and declared > limit_bytes:
            raise BodyTooLargeError(limit_bytes)
        if declared is not None and declared > _UNCOUNTED_BYTES:
            await self.reserve(declared)
        elif self._take_body is not None and self._ahead is None and self._watcher is None:
            found = self._take_body()
            if found is not None:
                self._is_complete = True
                if len(found) > limit_bytes:
                    raise BodyTooLargeError(limit_bytes)
                return found
        message = await self._next()
        body: bytes = message.get("body", b"")
        if not message.get("more_body", False):
            self._is_complete = True
            if len(body) > limit_bytes:
                raise BodyTooLargeError(limit_bytes)
            return body
        # Not a list of pieces: joining them would take the memory of the body twice, and freed
        # pieces of many bodies leave memory too fragmented to be used again.
        buffer, size = BytesIO(), len(body)
        buffer.write(body)
        while not self._is_complete:
            message = await self._next()
            piece: bytes = message.get("body", b"")
            buffer.write(piece)
            size += len(piece)
            if size > limit_bytes:
                raise BodyTooLargeError(limit_bytes)
            if size > self.body_bytes_reserved:
                await self.reserve(size)
            self._is_complete = not message.get("more_body", False)
        return buffer.getvalue()  # its own buffer, no copy

    async def reserve(self, size: int) -> None:
        """Reserve memory for a body of *size* bytes, unless it is too small to count.

        Raises:
            BodyBudgetError: The memory budget has no room for it.
        """
        more = size - self.body_bytes_reserved
        if size > _UNCOUNTED_BYTES and more > 0 and self._budget is not None:
            await self._budget.take(more)
            self.body_bytes_reserved += more

    def send_in_messages(self) -> None:
        """Send the response by ASGI's ``send`` only, for a caller that changes its messages."""
        self.send_full_response = self.write_body = None

    def release_body(self) -> None:
        """Release the memory that is reserved for the body."""
        if self._budget is not None:
            self._budget.give_back(self.body_bytes_reserved)
        self.body_bytes_reserved = 0

    async def body_or_stream(self) -> bytes | AsyncIterator[bytes]:
        """Return the body if it arrived in one piece, else its pieces as they arrive."""
        message = await self._next()
        body: bytes = message.get("body", b"")
        if not message.get("more_body", False):
            self._is_complete = True
            return body
        return _Pieces(self, body, None)

    def pieces(self, limit_bytes: int) -> AsyncIterator[bytes]:
        """Return the pieces of the body as they arrive.

        Raises:
            BodyTooLargeError: While iterating, when there are more than *limit_bytes*.
        """
        return _Pieces(self, b"", limit_bytes)

    async def _next(self) -> Message:
        if self._watcher is not None and not self._watcher.done():
            await self._watcher  # it alone may call receive() now
        message, self._ahead = self._ahead, None
        if message is None:
            message = await self._receive()
        if message["type"] == "http.disconnect":
            self.is_gone = True
            raise RequestAbortedError
        return message

    # ---- disconnect of the client
    def watch(self, task: asyncio.Task[object] | None = None) -> None:
        """Cancel *task*, by default this one, if the client disconnects before `unwatch`."""
        self._task = task or asyncio.current_task()
        self._watch_timer = _watch_timer_of(asyncio.get_running_loop())
        self._watch_timer.add(self)

    def unwatch(self) -> None:
        """Stop what `watch` started."""
        self._task = None
        if self._watch_timer is not None:
            self._watch_timer.discard(self)
        if self._watcher is not None:
            self._watcher.cancel()
            self._watcher = None
        if self._set_on_disconnect is not None:
            self._set_on_disconnect(None)
            self._set_on_disconnect = None

    def _watch_now(self) -> None:
        idle = self._watcher is None or self._watcher.done()
        if self._task is None or not idle or self._ahead is not None:
            return
        if self._is_complete and self._set_on_disconnect is None:
            self._await_disconnect()
        if self._set_on_disconnect is None:  # under a server that has no such callback
            self._watcher = asyncio.get_running_loop().create_task(self._watch_disconnect())

    async def _watch_disconnect(self) -> None:
        message = await self._receive()
        while message["type"] != "http.disconnect":
            if not self._is_complete:
                self._ahead = message  # a piece of the body, which `_next` returns first
                self._await_disconnect()
                return
            message = await self._receive()
        self._on_disconnect()

    def _await_disconnect(self) -> None:
        """Register for the disconnect without calling `receive`, if the server can do that.

        The upstream may read no more of the body, and `receive` is not called any more then.
        """
        self._set_on_disconnect = (self.scope.get("extensions") or {}).get(ON_DISCONNECT)
        if self._set_on_disconnect is not None:
            self._set_on_disconnect(self._on_disconnect)

    def _on_disconnect(self) -> None:
        if not self.is_gone and self._task is not None:
            self._task.cancel()
        self.is_gone = True


class _Pieces:
    """Pieces of a body as they arrive; a class, since mypyc has no asynchronous generators."""

    __slots__ = ("_first", "_limit_bytes", "_request", "_size")

    def __init__(self, request: Request, first: bytes, limit_bytes: int | None) -> None:
        self._request, self._first, self._limit_bytes = request, first, limit_bytes
        self._size = len(first)

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        first, self._first = self._first, b""
        if first:
            return first
        request, limit_bytes = self._request, self._limit_bytes
        while not request._is_complete:
            message = await request._next()
            request._is_complete = not message.get("more_body", False)
            piece: bytes = message.get("body", b"")
            self._size += len(piece)
            if limit_bytes is not None and self._size > limit_bytes:
                raise BodyTooLargeError(limit_bytes)
            if piece:
                return piece
        request._watch_now()
        raise StopAsyncIteration


def path_of(request: Request) -> str:
    """Return the path for the model's server, decoded."""
    assert request.route is not None, "set by ProxyApp"
    cut, path = request.route.cut, request.path
    return path[len(cut) :] if cut else path


def target_of(request: Request) -> bytes:
    """Return path and query for the model's server."""
    assert request.route is not None, "set by ProxyApp"
    cut, target = request.route.cut, request.target
    return target.removeprefix(cut) if cut else target
