"""What a peer gets to see of a request.

A peer is somebody else's server: it gets neither the client's address nor a key of ours, and a
mark tells it, and us, when a request goes in a circle.

Source: RFC 9110 section 7.6.3 (Via). Unlike llama-swap, keys that we consumed
are never passed on, and loops are found.
"""

from __future__ import annotations

from collections.abc import Sequence

from ...http1.headers import request_headers
from ..access.api_keys import CREDENTIALS, NOT_PASSED_ON

_NAMED_BY_CLIENT = frozenset({b"x-real-ip"})


def peer_fields(
    headers: Sequence[tuple[bytes, bytes]], *, host: bytes, api_key: str | None,
    strips_credentials: bool, mark: bytes | None,
) -> list[tuple[bytes, bytes]]:  # fmt: skip
    """Return the fields that go to a peer.

    Args:
        headers: As they came, without fields that hold a key of ours; shape (n, 2), names in
            lower case.
        host: Of the peer.
        api_key: What the peer asks for, or None.
        strips_credentials: Those of the client were meant for us.
        mark: Name of this proxy, for others to notice a circle.

    Raises:
        HeaderError: A field cannot be sent on.
    """
    strip = _NAMED_BY_CLIENT
    if strips_credentials:
        strip |= NOT_PASSED_ON
    if api_key is not None:
        strip |= CREDENTIALS
    fields = request_headers(headers, host=host, client=None, strip=strip, trust_forwarded=False)
    if api_key is not None:
        key = api_key.encode()
        fields += [(b"Authorization", b"Bearer " + key), (b"X-Api-Key", key)]
    if mark is not None:
        fields.append((b"Via", b"1.1 " + mark))
    return fields
