"""WebSocket frames and handshakes, byte by byte: also those that no library would send."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import socket
import zlib
from functools import cache

from . import raw

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_MASK = b"\0\0\0\0"  # masked with nothing: the payload is readable


def frame(
    kind: int, payload: bytes = b"", *, is_last: bool = True, is_compressed: bool = False,
    is_masked: bool = False, size: int | None = None,
) -> bytes:  # fmt: skip
    """Return a frame.

    Args:
        kind: Opcode; 0 continues a message.
        payload: Of it.
        is_last: It ends its message.
        is_compressed: Says so; *payload* is taken as it is.
        is_masked: As clients send it.
        size: Announced instead of the true one; bytes.
    """
    size = len(payload) if size is None else size
    first = bytes([kind | (128 if is_last else 0) | (64 if is_compressed else 0)])
    mark = 128 if is_masked else 0
    if size < 126:
        length = bytes([mark | size])
    elif size < 1 << 16:
        length = bytes([mark | 126]) + size.to_bytes(2, "big")
    else:
        length = bytes([mark | 127]) + size.to_bytes(8, "big")
    return first + length + (_MASK if is_masked else b"") + payload


@cache
def bomb(size: int) -> bytes:
    """Return *size* zeros, deflated as a compressed message is; some thousandth of them."""
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    data = b"".join(deflate.compress(bytes(1 << 20)) for _ in range(size >> 20))
    return data + deflate.flush(zlib.Z_SYNC_FLUSH)[:-4]


def handshake(path: str, **fields: str) -> bytes:
    """Return the request that opens a websocket; *fields* are added, ``_`` stands for ``-``."""
    headers = {
        "Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
        "Sec-WebSocket-Extensions": "permessage-deflate",
        **{name.replace("_", "-"): value for name, value in fields.items()},
    }  # fmt: skip
    return raw.encode_request("GET", path, headers=headers)


def open_websocket(port: int, path: str, *, timeout_s: float = 30.0) -> raw.Connection:
    """Open a websocket, and return its connection behind the handshake."""
    client = raw.Connection(port, timeout_s=timeout_s)
    client.send(handshake(path))
    head = read_switch(client)
    assert head.startswith(b"HTTP/1.1 101 "), head
    return client


def read_switch(client: raw.Connection) -> bytes:
    """Read the head of a response and not one byte more; returns it."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        piece = client.socket.recv(1)
        assert piece, head
        head += piece
    return head


def accept_websocket(connection: socket.socket) -> bytes:
    """Read a handshake and accept it; returns what was read behind it.

    Raises:
        EOFError: The other end closed.
    """
    data = b""
    while b"\r\n\r\n" not in data:
        piece = connection.recv(1 << 16)
        if not piece:
            raise EOFError
        data += piece
    head, _, rest = data.partition(b"\r\n\r\n")
    lines = [line.partition(b":") for line in head.split(b"\r\n")]
    fields = {name.lower(): value.strip() for name, _, value in lines}
    key = fields[b"sec-websocket-key"]
    accept = base64.b64encode(hashlib.sha1(key + _GUID).digest())
    is_compressed = b"permessage-deflate" in fields.get(b"sec-websocket-extensions", b"")
    extension = b"Sec-WebSocket-Extensions: permessage-deflate\r\n" if is_compressed else b""
    connection.sendall(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + accept + b"\r\n" + extension + b"\r\n"
    )
    return rest


def send_until_stuck(
    connection: socket.socket, data: bytes, *, limit: int, patience_s: float = 0.3
) -> int:
    """Send *data* again and again until no more is taken, or the end; returns the bytes sent.

    Args:
        connection: Where to; its timeout is changed.
        data: What.
        limit: Of the bytes.
        patience_s: Nothing was taken for so long; seconds.
    """
    connection.settimeout(patience_s)
    sent = 0
    with contextlib.suppress(TimeoutError, ConnectionError):
        while sent < limit:
            sent += connection.send(data)
    return sent
