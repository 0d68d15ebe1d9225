"""Header fields that cross the proxy, in either direction. Pure.

Hop-by-hop fields never cross (RFC 9110 section 7.6.1: the nine known ones and those that a
``Connection`` field names). All others keep their order, case and duplicates: a relay that folds or
sorts breaks ``Set-Cookie``, and its traces differ from what was sent.
"""

from __future__ import annotations

from collections.abc import Sequence

from ...machine.errors import SwapchartError
from .request_id import FIELD as REQUEST_ID_FIELD

HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
"""Field names, in lower case, that never cross."""

# Naming one of these in Connection would let a client undo what the proxy decides about the request
# (CVE-2021-33197 and similar), or separate a body from its length.
_NOT_NAMEABLE = frozenset({b"authorization", b"content-length", b"host"})
_NOTHING: frozenset[bytes] = frozenset()
_TOKEN = b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
_BREAKING = b"\r\n\0"
_REQUEST_DROP = HOP_BY_HOP | {b"expect", b"host", b"x-forwarded-for", REQUEST_ID_FIELD}
_RESPONSE_DROP = HOP_BY_HOP | {REQUEST_ID_FIELD}
_FORWARDED = frozenset(
    {
        b"forwarded",
        b"x-forwarded-for",
        b"x-forwarded-host",
        b"x-forwarded-port",
        b"x-forwarded-proto",
    }
)
# Values of nearly every Connection field; with these the other fields need no second look.
_KNOWN_OPTIONS = frozenset({b"keep-alive", b"close", b"upgrade", b"keep-alive, upgrade", b""})


class HeaderError(SwapchartError):
    """A field would break its message: CR, LF or NUL, or no valid name.

    Attributes:
        name: The field's name as it came; b"" when several fields were checked at once.
    """

    def __init__(self, name: bytes, why: str) -> None:
        super().__init__(f"header field {name!r}: {why}" if name else f"header fields: {why}")
        self.name = name


def request_headers(
    headers: Sequence[tuple[bytes, bytes]],
    *,
    host: bytes,
    client: bytes | None,
    strip: frozenset[bytes] = _NOTHING,
    upgrade: bytes | None = None,
    trust_forwarded: bool = True,
) -> list[tuple[bytes, bytes]]:
    """Return the fields of a client's request that go upstream, and those that the proxy adds.

    The client's ``Connection`` list is applied to the client's fields before the proxy adds its
    own, so it can remove none of these. ``Content-Length`` crosses untouched: the sender of the
    body decides about it. ``X-Request-ID`` is left out, and added by the sender of the request:
    it differs for each, and the other fields are cached.

    Args:
        headers: The fields as they came; shape (n, 2), any case.
        host: Value of the Host field, which comes first.
        client: Address of the client, appended to X-Forwarded-For; None leaves that as it is.
        strip: Names, in lower case, to drop besides: those of credentials for the proxy.
        upgrade: Protocol to offer upstream, such as ``websocket``; None for none.
        trust_forwarded: Let the client's own Forwarded and X-Forwarded-* fields cross; the
            address is then appended to them. False drops them.

    Raises:
        HeaderError: A field contains CR, LF or NUL, or its name is not a token.
    """
    _check(headers)
    drop = _REQUEST_DROP
    if not trust_forwarded:
        drop |= _FORWARDED
    if strip:
        drop |= strip
    kept: list[tuple[bytes, bytes]] = [(b"Host", host)]
    forwarded: list[bytes] = []
    named = False
    for field in headers:
        name = field[0].lower()
        if name not in drop:
            kept.append(field)
        elif name == b"connection":
            named = named or field[1].lower() not in _KNOWN_OPTIONS
        elif name == b"x-forwarded-for" and trust_forwarded and name not in strip:
            forwarded.append(field[1])
    if named:
        kept = _without_named(kept, headers)
        if b"x-forwarded-for" in connection_names(headers):
            forwarded.clear()
    if client is not None:
        forwarded.append(client)
    if forwarded:
        kept.append((b"X-Forwarded-For", b", ".join(forwarded)))
    if upgrade is not None:
        kept += [(b"Connection", b"Upgrade"), (b"Upgrade", upgrade)]
    return kept


def response_headers(
    headers: Sequence[tuple[bytes, bytes]], *, strip: frozenset[bytes] = _NOTHING
) -> list[tuple[bytes, bytes]]:
    """Return the fields of an upstream's response that go to the client.

    ``Content-Length`` crosses only where it is the framing: beside a ``Transfer-Encoding`` it
    is dropped (RFC 9112 section 6.3). An event stream gets ``X-Accel-Buffering: no``, so that
    an nginx in front of the proxy does not buffer it. ``X-Request-ID`` is dropped: the response
    has the id of the request, which the upstream got too.

    Args:
        headers: The fields as they came; shape (n, 2), any case.
        strip: Names, in lower case, to drop besides.

    Returns:
        Fields with names in lower case, as ASGI has them.

    Raises:
        HeaderError: A field contains CR, LF or NUL, its name is not a token, or there are
            several Content-Length fields that differ.
    """
    _check(headers)
    drop = _RESPONSE_DROP | strip if strip else _RESPONSE_DROP
    kept: list[tuple[bytes, bytes]] = []
    length: bytes | None = None
    named = chunked = events = accel = False
    for field in headers:
        name = field[0].lower()
        if name in drop:
            if name == b"connection":
                named = named or field[1].lower() not in _KNOWN_OPTIONS
            elif name == b"transfer-encoding":
                chunked = True
            continue
        if name == b"content-length":
            if length is not None:
                if length != field[1]:
                    raise HeaderError(b"content-length", "given twice, with different values")
                continue
            length = field[1]
        elif name == b"content-type":
            events = field[1][:17].lower() == b"text/event-stream"
        elif name == b"x-accel-buffering":
            accel = True
        kept.append((name, field[1]))
    if named:
        kept = _without_named(kept, headers)
    if chunked and length is not None:
        kept = [field for field in kept if field[0] != b"content-length"]
    if events and not accel:
        kept.append((b"x-accel-buffering", b"no"))
    return kept


def connection_names(headers: Sequence[tuple[bytes, bytes]]) -> frozenset[bytes]:
    """Return the names, in lower case, that the ``Connection`` fields declare hop-by-hop.

    All ``Connection`` fields count, the empty ones too; Host, Content-Length and Authorization
    are never among them.
    """
    names: set[bytes] = set()
    for name, value in headers:
        if name.lower() == b"connection":
            names.update(part.strip(b" \t").lower() for part in value.split(b","))
    names.discard(b"")
    return frozenset(names - _NOT_NAMEABLE)


def _without_named(
    kept: list[tuple[bytes, bytes]], headers: Sequence[tuple[bytes, bytes]]
) -> list[tuple[bytes, bytes]]:
    named = connection_names(headers)
    return [field for field in kept if field[0].lower() not in named]


def _check(headers: Sequence[tuple[bytes, bytes]]) -> None:
    """Raise HeaderError for what would end a field early; in one pass, since it is hot."""
    names = [name for name, _ in headers]
    values = b"".join([value for _, value in headers])
    if b"" in names:
        raise HeaderError(b"", "one of them has no name")
    if b"".join(names).translate(None, _TOKEN):
        for name, _ in headers:
            if name.translate(None, _TOKEN):
                raise HeaderError(name, "expected a token as its name")
    if len(values.translate(None, _BREAKING)) != len(values):
        for name, value in headers:
            if value.translate(None, _BREAKING) != value:
                raise HeaderError(name, "CR, LF or NUL in its value")
