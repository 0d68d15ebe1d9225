"""One HTTP/1.1 GET over a fresh connection: what a readiness probe needs, and no more.

No pool, no redirect, no cookie, no proxy of the environment. The verdict is the status line;
of the body at most 64 KiB are read, and only to part from the server in peace.
"""

from __future__ import annotations

import socket
import ssl
import struct
from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import quote, urlsplit

import anyio
from anyio.abc import ByteStream, SocketAttribute

from .procfs import IPAddress

LIMIT_BYTES = 1 << 16
_LINGER_S = 0.05
_SAFE = "/?%:@!$&'()*+,;=-._~[]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came back.

    Attributes:
        status: The status code, or None when there was no answer.
        detail: What was found, in a few words, when it was not a 200.
        peer: Address and port that answered, when they are on loopback and in plain HTTP.
    """

    status: int | None
    detail: str = ""
    peer: tuple[IPAddress, int] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Target:
    host: str
    port: int
    is_tls: bool
    request: bytes


def _parse(url: str) -> _Target:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("expected an http or https URL")
    is_tls = parts.scheme == "https"
    path = quote((parts.path or "/") + (f"?{parts.query}" if parts.query else ""), safe=_SAFE)
    lines = (
        f"GET {path} HTTP/1.1",
        f"Host: {parts.netloc.rpartition('@')[2]}",
        "User-Agent: swapchart",
        "Accept: */*",
        "Connection: close",
    )
    request = "\r\n".join((*lines, "", "")).encode("ascii")
    port = parts.port or (443 if is_tls else 80)
    return _Target(host=parts.hostname, port=port, is_tls=is_tls, request=request)


async def get(url: str, *, timeout_s: float) -> Answer:
    """GET *url* once; never raises for what the other end does, and ends within *timeout_s*."""
    try:
        target = _parse(url)
    except ValueError as error:  # UnicodeError, a port out of range, a broken IPv6 literal
        return Answer(status=None, detail=f"bad url: {error}")
    with anyio.move_on_after(timeout_s):
        try:
            return await _exchange(target)
        except ssl.SSLError as error:
            return Answer(status=None, detail=f"tls: {error.reason or error}")
        except OSError as error:
            return Answer(status=None, detail=_reason(error))
        except (anyio.BrokenResourceError, anyio.EndOfStream, anyio.ClosedResourceError):
            return Answer(status=None, detail="connection lost")
    return Answer(status=None, detail="timeout")


def _reason(error: OSError) -> str:
    """Put a failed connection attempt in one word; anyio hides the cause one level down."""
    causes: list[BaseException] = [error]
    for cause in causes:  # grows while we walk
        if isinstance(cause, BaseExceptionGroup):
            causes += cause.exceptions
        elif cause.__cause__ is not None:
            causes.append(cause.__cause__)
        if isinstance(cause, ConnectionRefusedError):
            return "refused"
        if isinstance(cause, socket.gaierror):
            return "unknown host"
    last = causes[-1]
    return (last.strerror if isinstance(last, OSError) else None) or type(last).__name__


async def _exchange(target: _Target) -> Answer:
    stream: ByteStream
    peer: tuple[IPAddress, int] | None = None
    if target.is_tls:
        context = ssl.create_default_context()
        stream = await anyio.connect_tcp(
            target.host, target.port, ssl_context=context, tls_standard_compatible=False
        )
    else:
        plain = await anyio.connect_tcp(target.host, target.port)
        stream = plain
        local = plain.extra(SocketAttribute.local_address)
        remote = plain.extra(SocketAttribute.remote_address)
        if local == remote:
            # A port of the ephemeral range where nobody listens can be connected to itself.
            # Reset it: in TIME_WAIT it would keep the child from binding its port.
            raw = plain.extra(SocketAttribute.raw_socket)
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            await anyio.aclose_forcefully(plain)
            return Answer(status=None, detail="refused")
        address = ip_address(str(remote[0]).partition("%")[0])
        if address.is_loopback or address.is_unspecified:
            peer = (address, int(remote[1]))
    try:
        await stream.send(target.request)
        return await _read(stream, peer)
    finally:
        await anyio.aclose_forcefully(stream)


async def _read(stream: ByteStream, peer: tuple[IPAddress, int] | None) -> Answer:
    data = bytearray()
    while b"\n" not in data and len(data) < LIMIT_BYTES:
        try:
            data += await stream.receive(LIMIT_BYTES)
        except anyio.EndOfStream:
            break
    status = _status(bytes(data))
    if status is None:
        detail = "not HTTP" if data else "closed without an answer"
        return Answer(status=None, detail=detail)
    await _drain(stream, data)
    return Answer(status=status, detail="" if status == 200 else f"status {status}", peer=peer)


def _status(data: bytes) -> int | None:
    words = data.partition(b"\n")[0].split()
    if len(words) < 2 or not words[0].startswith(b"HTTP/1.") or not words[1].isdigit():
        return None
    return int(words[1]) if len(words[1]) == 3 else None


async def _drain(stream: ByteStream, data: bytearray) -> None:
    """Read on for a moment: closing over unread bytes resets the connection under the server."""
    with anyio.move_on_after(_LINGER_S):
        try:
            while len(data) < LIMIT_BYTES and not _is_complete(data):
                data += await stream.receive(LIMIT_BYTES)
        except (anyio.EndOfStream, anyio.BrokenResourceError, OSError):
            pass


def _is_complete(data: bytearray) -> bool:
    head, end, body = bytes(data).partition(b"\r\n\r\n")
    if not end:
        return False
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length" and value.strip().isdigit():
            return len(body) >= int(value)
    return False
