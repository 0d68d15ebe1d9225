"""Clients of a soak: each request ends in exactly one way, and the ledger knows which.

completed  the whole answer came, and it is right
truncated  the answer broke off, and could be seen to
refused    an error with a reason
left       the client did not wait
wrong      anything else: no answer, an error without a reason, an end that was no end
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import random
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

PATIENCE_S = 90.0
_CHAT = "/v1/chat/completions"


@dataclass(slots=True)
class Ledger:
    """Outcomes of all requests.

    Attributes:
        sent: Requests that were written to the proxy.
        ended: How they ended.
        refusals: Status and code of those that were refused.
        wrongs: What was wrong; the first hundred.
        bad_inputs: Inputs tried that no client should send.
        faults: Faults injected, by kind.
    """

    sent: int = 0
    ended: Counter[str] = field(default_factory=Counter)
    refusals: Counter[str] = field(default_factory=Counter)
    wrongs: list[str] = field(default_factory=list)
    bad_inputs: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)

    def wrong(self, what: str) -> None:
        """Note what should never be."""
        self.ended["wrong"] += 1
        print(f"wrong: {what}", file=sys.stderr)
        if len(self.wrongs) < 100:
            self.wrongs.append(what)

    def balance(self) -> int:
        """Return how many requests were sent and never ended."""
        return self.sent - sum(self.ended.values())


class ResponseAbortedError(Exception):
    """The response was aborted before its end, and the client can detect it."""


@dataclass(slots=True)
class Answer:
    """A whole answer by its own framing."""

    status: int
    body: bytes


async def read_answer(reader: asyncio.StreamReader) -> Answer:
    """Read one answer.

    Raises:
        ResponseAbortedError: The response began and was aborted.
        EOFError: There was none.
    """
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as error:
        if error.partial:
            raise ResponseAbortedError(f"in the head: {error.partial[:80]!r}") from error
        raise EOFError("closed without an answer") from error
    except ConnectionError as error:
        raise EOFError(f"no answer: {error}") from error
    lines = head.split(b"\r\n")
    status = int(lines[0].split()[1])
    fields = {
        name.lower(): value.strip()
        for name, _, value in (line.partition(b":") for line in lines[1:])
    }
    try:
        if fields.get(b"transfer-encoding") == b"chunked":
            return Answer(status, await _chunks(reader))
        length = int(fields.get(b"content-length", b"0"))
        return Answer(status, await reader.readexactly(length))
    except (asyncio.IncompleteReadError, ConnectionError, asyncio.LimitOverrunError) as error:
        raise ResponseAbortedError(f"in the body: {error!r}") from error


async def _chunks(reader: asyncio.StreamReader) -> bytes:
    pieces: list[bytes] = []
    while True:
        size = int((await reader.readuntil(b"\r\n")).split(b";")[0], 16)
        data = await reader.readexactly(size + 2)
        if not size:
            return b"".join(pieces)
        pieces.append(data[:-2])


def request_bytes(target: str, body: bytes, kind: str = "application/json") -> bytes:
    """Return a POST request."""
    head = (
        f"POST {target} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {kind}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


class Client:
    """Makes requests of all kinds to one proxy.

    Args:
        port: Of the proxy.
        ledger: Where everything is noted.
        rng: What happens next.
        why: Called when no answer came; returns what the proxy says of it.
    """

    def __init__(
        self, port: int, ledger: Ledger, rng: random.Random, why: Callable[[], Awaitable[str]]
    ) -> None:
        self._port, self._ledger, self._rng, self._why = port, ledger, rng, why

    async def one(self, models: Sequence[str]) -> None:
        """Make one request of some kind to one of *models*, and see it end."""
        rng, model = self._rng, self._rng.choice(models)
        kind = rng.choices(
            ("chat", "stream", "upload", "leave", "stall"), (40, 30, 10, 15, 5)
        )[0]  # fmt: skip
        tokens = rng.choice((1, 5, 20, 60))
        if kind == "upload":
            data = rng.randbytes(rng.choice((10, 5_000, 200_000, 1_500_000)))
            request = request_bytes(
                f"/upstream/{model}/echo/soak", data, "application/octet-stream"
            )
        else:
            data = b""
            body = {
                "model": model, "max_tokens": tokens, "ignore_eos": True, "stream": kind != "chat",
                "messages": [{"role": "user", "content": f"number {rng.random()}"}],
                "stream_options": {"include_usage": True},
            }  # fmt: skip
            request = request_bytes(_CHAT, json.dumps(body).encode())
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self._port, limit=1 << 22)
        except OSError as error:
            self._ledger.sent += 1
            self._ledger.wrong(f"{kind}: no connection: {error}")
            return
        self._ledger.sent += 1
        try:
            await self._exchange(kind, model, tokens, data, request, reader, writer)
        finally:
            writer.transport.abort()

    async def _exchange(
        self, kind: str, model: str, tokens: int, data: bytes, request: bytes,
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter,
    ) -> None:  # fmt: skip
        ledger, rng = self._ledger, self._rng
        if kind == "leave":
            await self._leave(request, reader, writer)
            return
        try:
            async with asyncio.timeout(PATIENCE_S):
                with contextlib.suppress(ConnectionError):  # an early answer may close behind it
                    writer.write(request)
                    await writer.drain()
                if kind == "stall":
                    await asyncio.sleep(rng.random() * 2)
                answer = await read_answer(reader)
        except ResponseAbortedError:
            ledger.ended["truncated"] += 1
        except EOFError as error:
            ledger.wrong(f"{kind} {model}: {error}")
        except TimeoutError:
            port = writer.get_extra_info("sockname")[1]
            what = f"{kind} {model} from port {port}: nothing within {PATIENCE_S:.0f} s"
            ledger.wrong(f"{what}\n{await self._why()}")
        else:
            self._judge(kind, model, tokens, data, answer)

    async def _leave(
        self, request: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Go away: within the request, before the answer, or in the middle of it."""
        cut = self._rng.choice((len(request), len(request), len(request) // 2, 20))
        writer.write(request[:cut])
        with contextlib.suppress(TimeoutError, ConnectionError):
            async with asyncio.timeout(self._rng.choice((0.0, 0.01, 0.1, 1.0, 3.0))):
                while await reader.read(4096):
                    pass
        self._ledger.ended["left"] += 1

    def _judge(self, kind: str, model: str, tokens: int, data: bytes, answer: Answer) -> None:
        ledger = self._ledger
        if answer.status != 200:
            try:
                error = json.loads(answer.body)["error"]
                assert error["message"]
            except (ValueError, KeyError, TypeError, AssertionError):
                ledger.wrong(
                    f"{kind} {model}: {answer.status} without a reason: {answer.body[:200]!r}"
                )
            else:
                ledger.ended["refused"] += 1
                ledger.refusals[f"{answer.status} {error.get('code')}"] += 1
            return
        try:
            verdict = _verdict(kind, tokens, data, answer.body)
        except (ValueError, KeyError, IndexError, TypeError) as error:
            verdict = f"unreadable: {error!r}"
        if verdict:
            ledger.wrong(f"{kind} {model}: {verdict}: ...{answer.body[-300:]!r}")
        else:
            ledger.ended["completed"] += 1


def _verdict(kind: str, tokens: int, data: bytes, body: bytes) -> str:
    """Return what is wrong with a body that ended as if it were whole; empty is nothing."""
    if kind == "upload":
        right = json.loads(body)["body"]["sha256"] == hashlib.sha256(data).hexdigest()
        return "" if right else "another body arrived"
    if kind == "chat":
        found = json.loads(body)["usage"]["completion_tokens"]
        return "" if found == tokens else f"{found} tokens of {tokens}"
    events = [line[6:] for line in body.split(b"\n") if line.startswith(b"data: ")]
    if not events or events[-1] != b"[DONE]":
        return "a clean end without [DONE]"
    pieces = [json.loads(event) for event in events[:-1]]
    found = sum(
        bool(piece["choices"] and piece["choices"][0]["delta"].get("content")) for piece in pieces
    )
    told = next((piece["usage"]["completion_tokens"] for piece in pieces if "usage" in piece), None)
    if told != tokens:
        return f"{told} tokens of {tokens}"
    return "" if found == tokens else f"{found} events of {tokens}"
