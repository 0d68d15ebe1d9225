"""Invalid requests: each must be refused or aborted soon, without effect on other clients."""

from __future__ import annotations

import asyncio
import contextlib
import random

from .soak_client import Ledger

_LIMIT_S = 20.0
_CHAT = (
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
)
_BODY = b'{"model": "tortoise", "max_tokens": 1, "messages": []}'


def _json(body: bytes) -> bytes:
    return _CHAT + b"Content-Length: %d\r\n\r\n%b" % (len(body), body)


#: name -> bytes; none may be answered with 2xx.
BAD: dict[str, bytes] = {
    "garbage": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    "no version": b"GET /health\r\n\r\n",
    "version 9.9": b"GET /health HTTP/9.9\r\nHost: a\r\n\r\n",
    "length and coding": _CHAT
    + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "two lengths": _CHAT + b"Content-Length: 4\r\nContent-Length: 5\r\n\r\nabcde",
    "negative length": _CHAT + b"Content-Length: -1\r\n\r\n",
    "wrong chunk": _CHAT + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
    "unknown coding": _CHAT + b"Transfer-Encoding: gzip\r\n\r\n",
    "long field": b"GET /health HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 70_000 + b"\r\n\r\n",
    "many fields": b"GET /health HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 5_000 + b"\r\n",
    "long target": b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
    "NUL in a field": b"GET /health HTTP/1.1\r\nHost: a\r\nX: a\x00b\r\n\r\n",
    "space before colon": b"GET /health HTTP/1.1\r\nHost : a\r\n\r\n",
    "unknown method": b"BREW /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    "wrong method": b"DELETE /v1/models HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    "no such route": b"GET /../../etc/passwd HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    "foreign host": b"GET /v1/models HTTP/1.1\r\nHost: evil.example\r\n\r\n",
    "other site": b"POST /api/models/unload HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    b"Origin: https://evil.example\r\nContent-Length: 0\r\n\r\n",
    "not JSON": _json(b"{'model': tortoise}"),
    "cut JSON": _json(_BODY[:-3]),
    "empty body": _json(b""),
    "a list": _json(b"[1, 2, 3]"),
    "deep": _json(b'{"model": "tortoise", "x": ' + b"[" * 50_000 + b"]" * 50_000 + b"}"),
    "not UTF-8": _json(b'{"model": "\xff\xfe"}'),
    "model is a number": _json(b'{"model": 7}'),
    "no model": _json(b'{"messages": []}'),
    "unknown model": _json(b'{"model": "tortise"}'),
    "lone surrogate": _json(b'{"model": "\\ud800"}'),
    "unknown model's path": b"GET /upstream/nobody/health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    "NUL in a path": b"GET /upstream/%00/x HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    "half a body": _CHAT + b"Content-Length: 1000\r\n\r\n" + _BODY,
}
_HALF = "half a body"


async def try_one(port: int, ledger: Ledger, rng: random.Random) -> None:
    """Send one of them, or a request with random bytes in it, and wait for the end."""
    name = rng.choice([*BAD, "mutant", "mutant", "mutant"])
    data = BAD.get(name) or _mutant(rng)
    ledger.bad_inputs[name] += 1
    try:
        async with asyncio.timeout(_LIMIT_S):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                writer.write(data)
                if name in (_HALF, "mutant"):  # more may be expected: this client goes away
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(0.2):
                            await reader.read(64)
                    return
                head = await reader.read(64)
            finally:
                writer.transport.abort()
    except (ConnectionError, asyncio.IncompleteReadError):
        return
    except TimeoutError:
        ledger.wrong(f"bad input {name}: no answer within {_LIMIT_S:.0f} s")
        ledger.sent += 1
        return
    if head.split(b" ")[1:2] and head.split(b" ")[1].startswith(b"2"):
        ledger.wrong(f"bad input {name}: {head!r}")
        ledger.sent += 1


def _mutant(rng: random.Random) -> bytes:
    data = bytearray(_json(_BODY))
    for _ in range(rng.randint(1, 8)):
        at = rng.randrange(len(data))
        match rng.randrange(3):
            case 0:
                data[at] = rng.randrange(256)
            case 1:
                del data[at : at + rng.randint(1, 10)]
            case _:
                data[at:at] = rng.randbytes(rng.randint(1, 10))
        if not data:
            return b"\r\n"
    return bytes(data)
