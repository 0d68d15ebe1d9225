"""Request headers for upstreams.

The server of a local model gets the client's headers and X-Forwarded-*. A peer may belong to
someone else, so it gets neither the client's address nor our API keys. A Via header with the id of
this proxy lets every proxy on the way detect a loop.

Source: RFC 9110 section 7.6.3 (Via). In contrast to llama-swap, API keys of this proxy are passed
on only to models that ask for them, and loops are detected.
"""

from __future__ import annotations

from collections.abc import Sequence

from ...http1.asgi_types import Headers
from ...http1.client.pool import field_lines
from ...http1.headers import request_headers
from ..access.api_keys import CREDENTIALS, NOT_FORWARDED, OVERRIDES
from ..accounting.request_record import RequestRecord
from ..context import ProxyContext
from ..models.catalog import Target
from ..request import Request
from ..tracing.port import Tracing
from ..upstreams import Upstream

_NOTHING: frozenset[bytes] = frozenset()
_NAMED_BY_CLIENT = frozenset({b"x-real-ip"})


def client_headers(
    context: ProxyContext, request: Request, target: Target, length: int | None,
    is_uncompressed: bool,
) -> Headers:  # fmt: skip
    """Return the client's headers without API keys, and as the body that is sent needs them.

    Without those of the trace context too, if requests are traced: see `traced_headers`.

    Args:
        context: Knows which keys *target* must not get.
        request: The request.
        target: Model that it is for.
        length: Length of the body in bytes, where it is not what the client announced.
        is_uncompressed: The response must not be compressed.
    """
    headers = context.removed_keys(target).without_keys(request.headers)
    if context.tracing is not None:
        headers = context.tracing.client_headers(headers)
    if is_uncompressed:
        headers = [header for header in headers if header[0] != b"accept-encoding"]
    if length is None:
        return headers
    kept = [header for header in headers if header[0] != b"content-length"]
    return [*kept, (b"content-length", b"%d" % length)]


def traced_headers(
    tracing: Tracing, record: RequestRecord, upstream: Upstream, headers: Headers | bytes
) -> Headers | bytes:
    """Return *headers*, or lines of headers, with those of the trace context of *record*."""
    added = tracing.upstream_headers(record, upstream.endpoint)
    return headers + field_lines(added) if isinstance(headers, bytes) else [*headers, *added]


def model_request_headers(
    context: ProxyContext, request: Request, headers: Headers, upstream: Upstream, *,
    passes_keys: bool, upgrade: bytes | None = None,
) -> list[tuple[bytes, bytes]]:  # fmt: skip
    """Return the request headers for the server of a local model.

    Args:
        context: Knows which proxies in front are trusted, and whether there are API keys.
        request: Knows Host and the client's address.
        headers: The client's, without those that hold an API key to remove; shape (n, 2), names in
            lower case.
        upstream: The server.
        passes_keys: The server gets the credentials of the client.
        upgrade: Protocol to upgrade to; None means no upgrade.

    Raises:
        HeaderError: A header cannot be forwarded.
    """
    client = request.client
    strip = _NOTHING
    if not context.admission.keys.is_empty:
        strip = OVERRIDES if passes_keys else NOT_FORWARDED
    return request_headers(
        headers,
        host=request.header(b"host") or upstream.host,
        client=None if client is None else client.encode(),
        strip=strip,
        upgrade=upgrade,
        trust_forwarded=context.trusts(client),
    )


def peer_request_headers(
    headers: Sequence[tuple[bytes, bytes]], *, host: bytes, api_key: str | None,
    strips_credentials: bool, mark: bytes | None,
) -> list[tuple[bytes, bytes]]:  # fmt: skip
    """Return the request headers for a peer.

    Args:
        headers: The client's, without those that hold one of our API keys; shape (n, 2), names in
            lower case.
        host: Value of Host.
        api_key: API key of the peer; None keeps the client's credentials.
        strips_credentials: The client's credentials are for this proxy.
        mark: Name of this proxy in Via; None adds no Via.

    Raises:
        HeaderError: A header cannot be forwarded.
    """
    strip = _NAMED_BY_CLIENT
    if strips_credentials:
        strip |= NOT_FORWARDED
    if api_key is not None:
        strip |= CREDENTIALS
    found = request_headers(headers, host=host, client=None, strip=strip, trust_forwarded=False)
    if api_key is not None:
        key = api_key.encode()
        found += [(b"Authorization", b"Bearer " + key), (b"X-Api-Key", key)]
    if mark is not None:
        found.append((b"Via", b"1.1 " + mark))
    return found
