"""WebSocket echo endpoint (RFC 6455), to test proxies."""

from __future__ import annotations

import base64
import hashlib

from .http import Exchange, HttpConnection, HttpError

_GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_CLOSE, _PING, _PONG = 8, 9, 10
_FRAME_LIMIT = 1 << 24


async def serve_echo(exchange: Exchange) -> None:
    """Upgrade the connection and echo frames until one side closes.

    Raises:
        HttpError: The handshake has no key.
        DisconnectedError: The client disconnected without closing.
    """
    key = exchange.header("sec-websocket-key")
    if not key:
        raise HttpError(400, "expected a Sec-WebSocket-Key")
    exchange.keeps, exchange.status = False, 101
    accept = base64.b64encode(hashlib.sha1((key + _GUID).encode()).digest()).decode()
    fields = ["Upgrade: websocket", "Connection: Upgrade", f"Sec-WebSocket-Accept: {accept}"]
    protocol = exchange.header("sec-websocket-protocol").partition(",")[0]
    if protocol:
        fields.append(f"Sec-WebSocket-Protocol: {protocol}")
    head = "\r\n".join(["HTTP/1.1 101 Switching Protocols", *fields, "", ""])
    await exchange.connection.write(head.encode("latin-1"))
    with exchange.watched():
        await _echo(exchange.connection)


async def _echo(connection: HttpConnection) -> None:
    while True:
        first, data = await _read_frame(connection)
        code = first & 0x0F
        if code != _PONG:
            answer = (first & 0xF0) | (_PONG if code == _PING else code)
            await connection.write(bytes([answer]) + _length(len(data)) + data)
        if code == _CLOSE:
            return


async def _read_frame(connection: HttpConnection) -> tuple[int, bytes]:
    first, second = await connection.read_exactly(2)
    size = second & 0x7F
    if size >= 126:
        size = int.from_bytes(await connection.read_exactly(2 if size == 126 else 8), "big")
    if size > _FRAME_LIMIT or not second & 0x80:
        raise HttpError(400, "expected masked frames of a sane size")
    mask = await connection.read_exactly(4)
    data = await connection.read_exactly(size)
    pad = (mask * (size // 4 + 1))[:size]
    plain = int.from_bytes(data, "big") ^ int.from_bytes(pad, "big")
    return first, plain.to_bytes(size, "big")


def _length(size: int) -> bytes:
    if size < 126:
        return bytes([size])
    if size < 1 << 16:
        return bytes([126]) + size.to_bytes(2, "big")
    return bytes([127]) + size.to_bytes(8, "big")
