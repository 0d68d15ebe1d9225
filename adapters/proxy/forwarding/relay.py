"""Passes one request to an upstream and its answer to the client, piece by piece.

Nothing is collected: a piece is sent on before the next is read, so a slow client slows the
upstream and memory stays bounded. An answer that breaks off is never ended cleanly.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from time import perf_counter

from ...http1.asgi_types import Headers, Send, SendFullResponse
from ...http1.client.pool import UpstreamBroken, UpstreamResponse
from ...http1.headers import HeaderError, response_headers
from ..accounting.request_record import RequestRecord
from ..upstreams import Upstream


async def relay(
    send: Send,
    upstream: Upstream,
    target: bytes,
    fields: Headers | bytes,
    body: bytes | AsyncIterator[bytes] | None,
    exchange: RequestRecord,
    send_full_response: SendFullResponse | None = None,
) -> None:
    """Send a request to *upstream* and relay the answer.

    Args:
        send: Where the answer goes.
        upstream: Where the request goes.
        target: Path and query for the upstream, without its prefix.
        fields: Of the request; hop-by-hop ones are gone. Or lines, see ``upstream.field_lines``.
        body: Of the request.
        exchange: Filled in on the way.
        send_full_response: Sends a complete response at once; the value of the ASGI extension
            ``FULL_RESPONSE``.

    Raises:
        UpstreamError: Before any byte was sent to the client if ``exchange.status`` is 0,
            else in the middle of the answer: then only breaking off tells the truth.
    """
    response = await upstream.pool.request(
        exchange.method,
        upstream.prefix + target,
        fields,
        body,
        header_timeout_s=upstream.header_timeout_s,
    )
    await relay_answer(send, upstream, response, exchange, send_full_response)


async def relay_answer(
    send: Send,
    upstream: Upstream,
    response: UpstreamResponse,
    exchange: RequestRecord,
    send_full_response: SendFullResponse | None = None,
) -> None:
    """Relay an answer whose head is here; see `relay`."""
    try:
        exchange.head = perf_counter()
        headers = _fields(response)
        exchange.note_fields(headers)
        piece = response.read_nowait()
        exchange.status = response.status
        if (
            send_full_response is not None and piece is not None and response.at_end
            and len(piece) <= exchange.keep_bytes
            and send_full_response(response.status, headers, piece)
        ):  # fmt: skip
            exchange.record_full_body(piece)
            return
        await send({"type": "http.response.start", "status": response.status, "headers": headers})
        keep = exchange.body_chunks.append
        is_more = True
        while is_more:
            if piece is None:
                piece = await response.read(timeout_s=upstream.stall_s)
            if piece:
                exchange.sent_bytes += len(piece)
                keep(piece)
                if exchange.sent_bytes > exchange.keep_bytes:
                    keep = exchange.keep_head_and_tail().append
            is_more = not response.at_end
            await send({"type": "http.response.body", "body": piece, "more_body": is_more})
            piece = response.read_nowait() if is_more else None
    finally:
        response.close()


def _fields(response: UpstreamResponse) -> Headers:
    try:
        return response_headers(response.headers)
    except HeaderError as error:
        raise UpstreamBroken("head", str(error)) from error
