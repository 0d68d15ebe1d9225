"""Limits of one client, and the checks of a request before any application sees it. Pure.

llhttp, strict as it is by default, rejects ambiguous framing (a length beside a coding, two
lengths, bare LF, folded fields). The checks here reject what it lets pass and this server does not.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cache

from .response_head import status_line

SPECIAL = frozenset({b"host", b"expect", b"transfer-encoding", b"upgrade", b"x-request-id"})
"""Names, in lower case, of the fields that the server acts on."""

_HOST_CHARS = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~!$&'()*+,;=%:[]"
_ABSOLUTE = re.compile(rb"https?://([^/?@]+)([/?].*)?", re.IGNORECASE)
_REQUEST_LINE = re.compile(rb"[^\r\n]* HTTP/(\d+\.\d+)\r?\n")


@dataclass(frozen=True, slots=True, kw_only=True)
class H1Limits:
    """Limits of one client.

    Attributes:
        header_bytes: Largest head of a request, target included; a trailer or an extension of a
            chunk may be as large, and a little larger where all of it comes at once.
        header_fields: Most fields in a head.
        target_bytes: Longest target.
        header_timeout_s: Longest time from the first byte of a head (or the connection) to its
            end; seconds.
        keep_alive_s: How long a connection without a request is kept, as ``Keep-Alive`` says;
            seconds.
        keep_alive_spare_s: How much longer it is kept, so that a client that believes the field
            never sends while the server closes; seconds.
        body_idle_s: Longest time without a byte of a body that is being sent; seconds.
        body_rate: Least bytes a second, over a minute, of a body that is being sent.
        write_timeout_s: Longest time without the client taking a byte of its response; seconds.
        linger_s: How long input is read and discarded behind the last response, so that the
            client gets to read that; seconds.
        drain_idle_s: How long connections without a request are kept after draining began;
            *linger_s* is no longer than this then; seconds.
        body_bytes: Buffered bytes of a body above which the client is paused.
        ahead_bytes: Buffered bytes of further requests above which the client is paused.
        stuck_bytes: Bytes read beyond these limits from a client that stays paused, to find out
            whether it has left.
        stuck_bytes_in_all: The same for all connections together.
    """

    header_bytes: int = 32768
    header_fields: int = 100
    target_bytes: int = 16384
    header_timeout_s: float = 10.0
    keep_alive_s: float = 75.0
    keep_alive_spare_s: float = 5.0
    body_idle_s: float = 30.0
    body_rate: float = 1024.0
    write_timeout_s: float = 60.0
    linger_s: float = 2.0
    drain_idle_s: float = 1.0
    body_bytes: int = 1 << 18
    ahead_bytes: int = 1 << 16
    stuck_bytes: int = 1 << 23
    stuck_bytes_in_all: int = 1 << 26


class BadRequestError(Exception):
    """A request is rejected; raised inside the parser's callbacks.

    Attributes:
        status: Of the response; 400..599.
    """

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


def check_sizes(
    limits: H1Limits, target: bytes, fields: list[tuple[bytes, bytes]], at_most: int
) -> None:
    """Reject a head that is too large; *at_most* is what it cannot exceed, in bytes.

    Raises:
        BadRequestError: The head exceeds a limit.
    """
    if len(fields) > limits.header_fields:
        raise BadRequestError(431, "too many fields")
    if len(target) > limits.target_bytes:
        raise BadRequestError(414, "target too long")
    if at_most > limits.header_bytes:
        size = sum(len(name) + len(value) + 4 for name, value in fields) + len(target)
        if size > limits.header_bytes:
            raise BadRequestError(431, "head too long")


def inspect_fields(fields: list[tuple[bytes, bytes]], is_1_0: bool) -> bool:
    """Check the fields that the server acts on; returns True if the client expects 100.

    Args:
        fields: The fields of the head whose names are in ``SPECIAL``; names in lower case.
        is_1_0: The request is HTTP/1.0.

    Raises:
        BadRequestError: A field is malformed, or asks for what the server does not support.
    """
    is_expecting = False
    hosts = 0
    for name, value in fields:
        if name == b"host":
            hosts += 1
            if hosts > 1 or value.translate(None, _HOST_CHARS):
                raise BadRequestError(400, "odd Host")
        elif name == b"transfer-encoding":
            if is_1_0:
                raise BadRequestError(400, "a coding in HTTP/1.0")
            if value.lower() != b"chunked":
                raise BadRequestError(501, "unknown coding")
        elif name == b"expect" and not is_1_0:
            if value.lower() != b"100-continue":
                raise BadRequestError(417, "unknown expectation")
            is_expecting = True
    if not hosts and not is_1_0:
        raise BadRequestError(400, "no Host")
    return is_expecting


def origin_form(method: bytes, target: bytes, fields: list[tuple[bytes, bytes]]) -> bytes:
    """Return the path of an absolute target; its authority replaces Host (RFC 9112 3.2.2).

    Raises:
        BadRequestError: The target has no known form.
    """
    if target == b"*" and method == b"OPTIONS":
        return target
    match = _ABSOLUTE.fullmatch(target)
    if match is None or match[1].translate(None, _HOST_CHARS):
        raise BadRequestError(400, "odd target")
    fields[:] = [field for field in fields if field[0] != b"host"]
    fields.insert(0, (b"host", match[1]))
    path = match[2] or b"/"
    return path if path[:1] == b"/" else b"/" + path


def status_of_error(data: bytes) -> int:
    """Return 505 for a request line with a wrong version, 400 for other malformed input."""
    match = _REQUEST_LINE.match(data)
    return 505 if match is not None and match[1] not in (b"1.0", b"1.1") else 400


@cache
def error_response(status: int) -> tuple[bytes, bytes]:
    """Return head and body of an error response; the head ends before the value of its id."""
    kind = "server_error" if status >= 500 else "invalid_request_error"
    first = status_line(status)
    message = first[13:-2].decode("ascii")
    error = {"message": message, "type": kind, "code": status}
    body = json.dumps({"error": error}).encode("ascii")
    head = (
        b"%bcontent-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n"
        b"x-request-id: "
    )
    return head % (first, len(body)), body
