"""Passes one request to an upstream and its answer to the client, piece by piece.

Nothing is collected: a piece is sent on before the next is read, so a slow client slows the
upstream and memory stays bounded. An answer that breaks off is never ended cleanly.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from time import perf_counter
from urllib.parse import urlsplit

from ..headers import HeaderError, request_headers, response_headers
from ..upstream import UpstreamBroken, UpstreamPool, UpstreamResponse
from .asgi_types import Headers, Send
from .request import Request


@dataclass(slots=True)
class Exchange:
    """What happened to one request, for whoever counts.

    Attributes:
        model: Real name of the model.
        path: Path that was asked for.
        started: When it came; seconds on the performance counter.
        admitted: When its model was ready for it, or 0.
        head: When the head of the answer came, or 0.
        status: Of the answer; 0 while there is none.
        content_type: Of the answer.
        sent_bytes: Of the answer's body.
        tail: Its last piece, where token counts stand.
        before_tail: The piece before.
    """

    model: str
    path: str
    started: float
    admitted: float = 0.0
    head: float = 0.0
    status: int = 0
    content_type: bytes = b""
    sent_bytes: int = 0
    tail: bytes = b""
    before_tail: bytes = b""


class Upstream:
    """One upstream by its base URL: a pool, and a prefix for paths.

    Args:
        endpoint: Such as ``http://127.0.0.1:5800/base``; a path is put before each target.
    """

    __slots__ = ("endpoint", "host", "pool", "prefix")

    def __init__(self, endpoint: str) -> None:
        url = urlsplit(endpoint)
        host, port = url.hostname or "127.0.0.1", url.port or (443 if url.scheme == "https" else 80)
        context = None
        if url.scheme == "https":
            import ssl

            context = ssl.create_default_context()
        self.endpoint = endpoint
        self.host = url.netloc.rpartition("@")[2].encode()
        self.prefix = url.path.rstrip("/").encode()
        self.pool = UpstreamPool(host, port, ssl=context)


def _fields(response: UpstreamResponse) -> Headers:
    try:
        return [(name.lower(), value) for name, value in response_headers(response.headers)]
    except HeaderError as error:
        raise UpstreamBroken("head", str(error)) from error


async def relay(
    request: Request,
    send: Send,
    upstream: Upstream,
    target: bytes,
    body: bytes | AsyncIterator[bytes] | None,
    exchange: Exchange,
    *,
    strip: frozenset[bytes],
    header_timeout_s: float | None = None,
    stall_s: float | None = None,
    trust_forwarded: bool = False,
) -> None:
    """Send *request* on to *upstream* and relay the answer.

    Args:
        request: Whose method and fields are sent.
        send: Where the answer goes.
        upstream: Where the request goes.
        target: Path and query for the upstream, without its prefix.
        body: Replaces the request's own body.
        exchange: Filled in on the way.
        strip: Field names, in lower case, that do not cross: consumed credentials.
        header_timeout_s: Longest wait for the head of the answer; None is without limit.
        stall_s: Longest pause between two pieces of the answer; None is without limit.
        trust_forwarded: Let the client's X-Forwarded-* fields cross.

    Raises:
        HeaderError: A field of the request cannot be sent on.
        UpstreamError: Before any byte was sent to the client if ``exchange.status`` is 0,
            else in the middle of the answer: then only breaking off tells the truth.
    """
    client = request.client
    fields = request_headers(
        request.headers,
        host=request.header(b"host") or upstream.host,
        client=None if client is None else client.encode(),
        strip=strip,
        trust_forwarded=trust_forwarded,
    )
    response = await upstream.pool.request(
        request.method.encode(),
        upstream.prefix + target,
        fields,
        body,
        header_timeout_s=header_timeout_s,
    )
    try:
        exchange.head = perf_counter()
        headers = _fields(response)
        for name, value in headers:
            if name == b"content-type":
                exchange.content_type = value
        exchange.status = response.status
        await send({"type": "http.response.start", "status": response.status, "headers": headers})
        is_more = True
        while is_more:
            piece = response.read_nowait()
            if piece is None:
                piece = await response.read(timeout_s=stall_s)
            if piece:
                exchange.sent_bytes += len(piece)
                exchange.before_tail, exchange.tail = exchange.tail, piece
            is_more = not response.at_end
            await send({"type": "http.response.body", "body": piece, "more_body": is_more})
    finally:
        response.close()
