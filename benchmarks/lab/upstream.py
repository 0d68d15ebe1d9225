"""A server that answers like llama-server and costs little; the same one behind every proxy.

    POST anything                              one short JSON answer
    POST anything?echo=1                       the request's body
    POST anything?chunks=N&period_us=P[&at=0][&now=1]  N events, one every P us; 0: as they are taken
    GET anything                               200

Each event carries the time at which it was written (nanoseconds on the monotonic clock), unless
``at=0`` asks for events that are the same each time. ``now=1`` asks for the first one at once.
"""  # noqa: E501

from __future__ import annotations

import argparse
import asyncio
import os
import random
import time
from typing import cast
from urllib.parse import parse_qs, urlsplit

import httptools
import uvloop

_TEXT = "A model that fits is worth two that swap. " * 5
_SHORT = (
    '{"id":"chatcmpl-bench","object":"chat.completion","created":1700000000,"model":"bench",'
    '"choices":[{"index":0,"finish_reason":"stop","message":{"role":"assistant","content":"'
    + _TEXT
    + '"}}],"usage":{"prompt_tokens":21,"completion_tokens":42,"total_tokens":63}}'
).encode()
_EVENT = (
    b'data: {"id":"chatcmpl-bench","object":"chat.completion.chunk","created":1700000000,'
    b'"model":"bench","choices":[{"index":0,"delta":{"content":" token"}}],"t":%020d}\n\n'
)
_LAST = (
    b'data: {"id":"chatcmpl-bench","object":"chat.completion.chunk","created":1700000000,'
    b'"model":"bench","choices":[],"usage":{"prompt_tokens":21,"completion_tokens":42,'
    b'"total_tokens":63}}\n\ndata: [DONE]\n\n'
)


def _answer(body: bytes, kind: bytes = b"application/json; charset=utf-8") -> bytes:
    head = b"HTTP/1.1 200 OK\r\nServer: bench\r\nContent-Type: %b\r\nContent-Length: %d\r\n\r\n"
    return head % (kind, len(body)) + body


_SHORT_ANSWER = _answer(_SHORT)
_STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\nServer: bench\r\nContent-Type: text/event-stream\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


class _Server(asyncio.Protocol):
    """One connection; answers one request after the other."""

    def __init__(self) -> None:
        self._parser = httptools.HttpRequestParser(self)
        self._url = b""
        self._body: list[bytes] = []
        self._timer: asyncio.Handle | None = None
        self._is_paused = False
        self._left = 0
        self._period_s = 0.0
        self._due = 0.0
        self._fixed: int | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._loop = asyncio.get_running_loop()

    def connection_lost(self, exc: Exception | None) -> None:
        self._left = 0
        if self._timer is not None:
            self._timer.cancel()

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._transport.close()

    # ---- what the parser says
    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_body(self, data: bytes) -> None:
        self._body.append(data)

    def on_message_complete(self) -> None:
        url, self._url = self._url, b""
        body, self._body = self._body, []
        if b"?" not in url:
            self._transport.write(_SHORT_ANSWER)
            return
        query = parse_qs(urlsplit(url).query)
        if b"echo" in query:
            self._transport.write(_answer(b"".join(body), b"application/octet-stream"))
            return
        self._left = int(query[b"chunks"][0])
        self._period_s = int(query[b"period_us"][0]) / 1e6
        self._fixed = int(query[b"at"][0]) if b"at" in query else None
        self._transport.write(_STREAM_HEAD)
        if self._period_s:  # streams that began together do not tick together
            share = 0.0 if b"now" in query else random.random()
            self._due = self._loop.time() + share * self._period_s
            self._timer = self._loop.call_at(self._due, self._tick)
        else:
            self._flood()

    # ---- streams
    def _event(self) -> bytes:
        return _chunk(_EVENT % (time.monotonic_ns() if self._fixed is None else self._fixed))

    def _tick(self) -> None:
        if self._left <= 0:
            self._end()
            return
        self._left -= 1
        if not self._is_paused:
            self._transport.write(self._event())
        self._due += self._period_s
        self._timer = self._loop.call_at(self._due, self._tick)

    def _flood(self) -> None:
        """Write one event a turn of the loop: each is a write of its own, as llama-server's are."""
        if self._is_paused:
            return
        if self._left <= 0:
            self._end()
            return
        self._left -= 1
        self._transport.write(self._event())
        self._timer = self._loop.call_soon(self._flood)

    def _end(self) -> None:
        self._timer = None
        self._transport.write(_chunk(_LAST) + b"0\r\n\r\n")

    def pause_writing(self) -> None:
        self._is_paused = True

    def resume_writing(self) -> None:
        self._is_paused = False
        if self._left > 0 and not self._period_s:
            self._flood()


async def _serve(port: int, ready_after_s: float) -> None:
    if ready_after_s:
        await asyncio.sleep(ready_after_s)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(_Server, "127.0.0.1", port, backlog=2048)
    await server.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--core", type=int)
    parser.add_argument("--ready-after-s", type=float, default=0.0, help="listens so much later")
    options = parser.parse_args()
    if options.core is not None:
        os.sched_setaffinity(0, {options.core})
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(options.port, options.ready_after_s))


if __name__ == "__main__":
    main()
