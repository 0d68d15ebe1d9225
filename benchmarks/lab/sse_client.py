"""Reads many event streams at once over raw sockets, and says what it cost the proxy.

Runs as a process of its own so that it can be pinned. After all streams have begun it opens a
window; within it, it counts events, takes how long each was under way (from the time the upstream
wrote into it), and reads the proxy's CPU time at both ends. With ``--first`` it asks for one stream
after the other instead, and takes how long each first event took. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import socket
import sys
import time
from array import array
from pathlib import Path
from typing import cast

import uvloop

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from lab.processes import cpu_ns

_MARK = b'"t":'
_DIGITS = 20
_DONE = b"data: [DONE]"


class _Window:
    """Counters of all streams; times are nanoseconds on the monotonic clock."""

    def __init__(self) -> None:
        self.is_open = False
        self.events = 0
        self.bytes = 0
        self.delays = array("q")
        self.first = asyncio.Semaphore(0)
        self.errors: list[str] = []


class _Stream(asyncio.Protocol):
    """One stream; asks when connected."""

    def __init__(self, request: bytes, window: _Window) -> None:
        self._request, self._window = request, window
        self._rest = b""
        self._has_head = self._is_done = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        now = time.monotonic_ns()
        window = self._window
        if not self._has_head:
            data = self._take_head(data)
            if not data:
                return
        elif window.is_open:
            window.bytes += len(data)
        if self._rest:
            data, self._rest = self._rest + data, b""
        at, end = 0, len(data)
        while (at := data.find(_MARK, at)) >= 0:
            at += len(_MARK)
            if at + _DIGITS > end:
                self._rest = data[at - len(_MARK) :]
                return
            if window.is_open:
                window.events += 1
                window.delays.append(now - int(data[at : at + _DIGITS]))
        # A mark may be cut in two; four bytes more can never hold a whole one.
        self._rest = data[-(len(_MARK) - 1) :]
        if _DONE in data:
            self._is_done = True
            if window.is_open:
                window.errors.append("a stream ended within the window")

    def _take_head(self, data: bytes) -> bytes:
        self._rest += data
        head, mark, body = self._rest.partition(b"\r\n\r\n")
        if not mark:
            return b""
        self._has_head, self._rest = True, b""
        if not head.startswith(b"HTTP/1.1 200"):
            self._window.errors.append(head.split(b"\r\n")[0].decode("latin-1"))
        self._window.first.release()
        return body

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._is_done and self._window.is_open:
            self._window.errors.append(f"broken off: {exc}")
        if not self._has_head:
            self._window.errors.append(f"no answer: {exc}")
            self._window.first.release()


async def _run(options: argparse.Namespace, request: bytes) -> dict[str, object]:
    loop = asyncio.get_running_loop()
    window = _Window()
    streams: list[_Stream] = []
    for _ in range(options.streams):
        _, stream = await loop.create_connection(
            lambda: _Stream(request, window), "127.0.0.1", options.port
        )
        streams.append(stream)
    async with asyncio.timeout(30):
        for _ in streams:
            await window.first.acquire()
    await asyncio.sleep(options.settle_s)
    before, started = cpu_ns(options.pids), time.monotonic()
    window.is_open = True
    await asyncio.sleep(options.seconds)
    window.is_open = False
    after, seconds = cpu_ns(options.pids), time.monotonic() - started
    for stream in streams:
        stream.transport.abort()
    delays = sorted(window.delays)
    if not delays:
        window.errors.append("no events")
        delays = [0]
    return {
        "events": window.events, "bytes": window.bytes, "seconds": seconds,
        "cpu_ns": after - before, "errors": window.errors[:5],
        "p50_us": delays[len(delays) // 2] / 1000, "p99_us": delays[len(delays) * 99 // 100] / 1000,
    }  # fmt: skip


async def _run_slow(options: argparse.Namespace, request: bytes) -> dict[str, object]:
    """Read 1 KiB of each stream ten times a second; the time counts once all have begun."""
    loop = asyncio.get_running_loop()
    socks: list[socket.socket] = []
    errors: list[str] = []
    for _ in range(options.streams):
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.setblocking(False)
        await loop.sock_connect(sock, ("127.0.0.1", options.port))
        await loop.sock_sendall(sock, request)
        socks.append(sock)
    async with asyncio.timeout(30):
        for sock in socks:
            head = await loop.sock_recv(sock, 512)
            if not head.startswith(b"HTTP/1.1 200"):
                errors.append(str(head[:40]))
    print("begun", flush=True)
    end = time.monotonic() + options.seconds
    while time.monotonic() < end:
        for sock in socks:
            try:
                if not sock.recv(1024):
                    errors.append("broken off")
            except BlockingIOError:
                continue
        await asyncio.sleep(0.1)
    for sock in socks:
        sock.close()
    return {"errors": errors[:5]}


def _is_whole(response: bytes) -> bool:
    head, mark, body = response.partition(b"\r\n\r\n")
    _, has_length, length = head.lower().partition(b"content-length: ")
    if has_length:
        return len(body) >= int(length.split(b"\r\n", 1)[0])
    return bool(mark) and body.endswith(b"\r\n0\r\n\r\n")


def _run_first(port: int, request: bytes, seconds: float) -> dict[str, object]:
    """Ask for one stream after the other on one connection; take the time to its first event."""
    delays = []
    with socket.create_connection(("127.0.0.1", port), timeout=30) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            began = time.monotonic_ns()
            sock.sendall(request)
            data, delay = b"", 0
            while not _is_whole(data):
                piece = sock.recv(65536)
                now = time.monotonic_ns()
                data += piece
                if not piece or not data.startswith(b"HTTP/1.1 200"[: len(data)]):
                    raise SystemExit(f"no stream: {data[:200]!r}")
                if not delay and _MARK in data:
                    delay = now - began
            delays.append(delay)
    delays.sort()
    p50, p99 = (delays[len(delays) * share // 100] / 1000 for share in (50, 99))
    return {"p50_us": p50, "p99_us": p99}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--request", required=True, help="file with the bytes to send")
    parser.add_argument("--streams", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--settle-s", type=float, default=0.2)
    parser.add_argument("--slow", action="store_true")
    parser.add_argument("--first", action="store_true", help="only the time to the first event")
    parser.add_argument("--pids", type=int, nargs="*", default=[])
    options = parser.parse_args()
    run = _run_slow if options.slow else _run
    request = Path(options.request).read_bytes()
    if options.first:
        print(json.dumps(_run_first(options.port, request, options.seconds)))
        return
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        print(json.dumps(runner.run(run(options, request))))


if __name__ == "__main__":
    main()
