"""Key of clients that send none, on a listener whose clients cannot.

The key is sent on as the password of Basic authentication, which browsers repeat by themselves: so
it lifts none of the checks of pages of other origins, as a key that a client adds itself does.
"""

from __future__ import annotations

from base64 import b64encode

from ...http1.asgi_types import Headers
from .api_keys import ApiKeys

_CREDENTIALS = (b"authorization", b"x-api-key")


def with_guest_key(headers: Headers, keys: ApiKeys, guest: str) -> Headers:
    """Return *headers*, with the key *guest* in place of credentials that are not valid.

    Args:
        headers: Of a request; names in lower case.
        keys: All valid keys.
        guest: The key; empty leaves the headers unchanged.
    """
    if not guest:
        return headers
    authorizations = [value for name, value in headers if name == b"authorization"]
    api_keys = [value for name, value in headers if name == b"x-api-key"]
    if keys.first_valid(authorizations, api_keys)[0] is not None:
        return headers
    kept = [field for field in headers if field[0] not in _CREDENTIALS]
    return [*kept, (b"authorization", b"Basic " + b64encode(b"ollama:" + guest.encode()))]
