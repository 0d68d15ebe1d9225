"""An HTTP/1.1 client that hides nothing: it sends the bytes it is given, and shows what came."""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from .net import LONG_S


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """A response without its body.

    Attributes:
        status: Such as 200.
        headers: Names as sent and values, in order.
    """

    status: int
    headers: tuple[tuple[str, str], ...]

    def header(self, name: str) -> str | None:
        """Return the first value of *name*, in any case of letters."""
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer(Head):
    """A whole response.

    Attributes:
        body: Without the chunks' framing.
        chunks: The pieces in which a chunked body was sent; one piece else.
    """

    body: bytes
    chunks: tuple[bytes, ...]

    def json(self) -> Any:
        """Return the body's JSON value."""
        return json.loads(self.body)

    def events(self) -> list[Any]:
        """Return the JSON values of a stream of events, without ``[DONE]``."""
        return parse_events(self.body)


def parse_events(body: bytes) -> list[Any]:
    """Return the JSON values of the ``data:`` lines of *body*, without ``[DONE]``."""
    lines = (line[5:].strip() for line in body.split(b"\n") if line.startswith(b"data:"))
    return [json.loads(line) for line in lines if line != b"[DONE]"]


def reset(connection: socket.socket) -> None:
    """Close *connection* with a reset (RST)."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


class Connection:
    """One TCP connection to a port of the loopback interface; a context manager.

    Every wait ends after *timeout_s* seconds with ``TimeoutError``.
    """

    def __init__(self, port: int, *, timeout_s: float = LONG_S) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=timeout_s)
        self._buffer = b""

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def send(self, data: bytes) -> None:
        """Send *data* as it is."""
        self.socket.sendall(data)

    def request(
        self,
        method: str,
        target: str,
        *,
        value: object = None,
        body: bytes | None = None,
        headers: Mapping[str, str] | Iterable[tuple[str, str]] = (),
    ) -> None:
        """Send a request; *value* is sent as JSON, *body* as it is."""
        self.send(encode_request(method, target, value=value, body=body, headers=headers))

    def read_head(self) -> Head:
        """Read a response up to its body; interim (1xx) responses but 101 are left out."""
        while True:
            lines = self._until(b"\r\n\r\n").decode("latin-1").split("\r\n")
            pairs = (line.partition(":") for line in lines[1:] if line)
            headers = tuple((name, value.strip()) for name, _, value in pairs)
            status = int(lines[0].split(" ")[1])
            if status >= 200 or status == 101:
                return Head(status=status, headers=headers)

    def read_body(self, head: Head) -> Answer:
        """Read the body that belongs to *head*."""
        chunks = []
        if (head.header("transfer-encoding") or "").lower() == "chunked":
            while chunk := self.read_chunk():
                chunks.append(chunk)
        elif (length := head.header("content-length")) is not None:
            chunks.append(self.read_exactly(int(length)))
        elif head.status not in (204, 304):
            chunks.append(self.read_all())
        body = b"".join(chunks)
        return Answer(status=head.status, headers=head.headers, body=body, chunks=tuple(chunks))

    def read_answer(self) -> Answer:
        """Read a whole response."""
        return self.read_body(self.read_head())

    def read_chunk(self) -> bytes:
        """Read one chunk of a chunked body; the last one is empty."""
        size = int(self._until(b"\r\n").partition(b";")[0], 16)
        data = self.read_exactly(size)
        if size:
            self.read_exactly(2)
        else:
            while self._until(b"\r\n") != b"\r\n":
                pass
        return data

    def read_exactly(self, size: int) -> bytes:
        """Read *size* bytes.

        Raises:
            EOFError: The other end closed before.
        """
        while len(self._buffer) < size:
            self._fill()
        data, self._buffer = self._buffer[:size], self._buffer[size:]
        return data

    def read_all(self) -> bytes:
        """Read until the other end closes; a reset counts as closing."""
        try:
            while True:
                self._fill()
        except (EOFError, ConnectionResetError):
            data, self._buffer = self._buffer, b""
            return data

    def is_silent_for(self, seconds: float) -> bool:
        """Return True if neither bytes nor the end arrive within *seconds*."""
        before = self.socket.gettimeout()
        self.socket.settimeout(seconds)
        try:
            self._fill()
        except TimeoutError:
            return True
        except (EOFError, ConnectionResetError):
            return False
        finally:
            self.socket.settimeout(before)
        return False

    def close(self) -> None:
        """Close the connection."""
        self.socket.close()

    def reset(self) -> None:
        """Close the connection with a reset (RST)."""
        reset(self.socket)

    def _fill(self) -> None:
        data = self.socket.recv(1 << 16)
        if not data:
            raise EOFError(f"connection closed after {self._buffer[-80:]!r}")
        self._buffer += data

    def _until(self, mark: bytes) -> bytes:
        while (at := self._buffer.find(mark)) < 0:
            self._fill()
        end = at + len(mark)
        data, self._buffer = self._buffer[:end], self._buffer[end:]
        return data


def encode_request(
    method: str,
    target: str,
    *,
    value: object = None,
    body: bytes | None = None,
    headers: Mapping[str, str] | Iterable[tuple[str, str]] = (),
) -> bytes:
    """Return the bytes of a request, with ``Host`` and, for a body, ``Content-Length``."""
    pairs = list(headers.items() if isinstance(headers, Mapping) else headers)
    names = {name.lower() for name, _ in pairs}
    if value is not None:
        body = json.dumps(value).encode()
        pairs += [("Content-Type", "application/json")] if "content-type" not in names else []
    if body is not None and not names & {"content-length", "transfer-encoding"}:
        pairs.append(("Content-Length", str(len(body))))
    if "host" not in names:
        pairs.insert(0, ("Host", "127.0.0.1"))
    lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {text}" for name, text in pairs)]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + (body or b"")


def call(
    port: int,
    method: str,
    target: str,
    *,
    value: object = None,
    body: bytes | None = None,
    headers: Mapping[str, str] | Iterable[tuple[str, str]] = (),
    timeout_s: float = LONG_S,
) -> Answer:
    """Make one request on a connection of its own.

    Raises:
        OSError: No server listens, or the response did not arrive in time.
        EOFError: The connection was closed before the answer was whole.
    """
    with Connection(port, timeout_s=timeout_s) as connection:
        connection.request(method, target, value=value, body=body, headers=headers)
        return connection.read_answer()


def status(port: int, target: str = "/health") -> int:
    """Return the status of a GET, or 0 when no answer could be had."""
    try:
        return call(port, "GET", target, timeout_s=2.0).status
    except (OSError, EOFError):
        return 0
