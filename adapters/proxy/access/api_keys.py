"""Who may do what: API keys, their scopes, and the models they are good for.

A request may carry its key as ``Authorization: Bearer``, as the password of ``Authorization:
Basic`` or as ``x-api-key``, because its clients do. A key is looked up by its hash, which nobody
can steer: the time an answer takes tells nothing of how much of a key was right.

Unlike llama-swap, which tries one credential only, the first
that is valid counts, keys can be limited, and none is ever passed on.
"""

from __future__ import annotations

import base64
import binascii
import string
from collections.abc import Iterable, Sequence
from hashlib import sha256
from urllib.parse import unquote_to_bytes

from ...http1.asgi_types import Headers
from ..formatting import REDACTED
from ..options import Access, ApiKey

#: Fields, in lower case, that carry credentials; none crosses once we have consumed them.
CREDENTIALS = frozenset({b"authorization", b"proxy-authorization", b"x-api-key"})

#: Fields, in lower case, that make some servers take a request for another method or path than the
#: one that was allowed here.
_OVERRIDES = frozenset(
    {
        b"x-http-method-override", b"x-http-method", b"x-method-override",
        b"x-original-url", b"x-rewrite-url",
    }
)  # fmt: skip

#: Fields that never cross where keys are configured.
NOT_PASSED_ON = CREDENTIALS | _OVERRIDES

_TRIED = 8  # credentials of one request; no client sends more, and each is a guess
_SPLIT = bytes.maketrans(b";,&?", b"    ")
_SPLIT_FINE = bytes.maketrans(b";,&?\"':{}", b" " * 9)
_SPLIT_FINEST = bytes.maketrans(b";,&?\"':{}=", b" " * 10)
_PLAIN = string.ascii_letters.encode() + string.digits.encode() + b"-._~/"  # nothing splits there
_QUOTES = b"\"'"
_LONGEST_BYTES = 512  # of a part of a field or query that is compared with our keys


class ApiKeys:
    """All keys of a configuration.

    Attributes:
        is_empty: No keys: everything is open.
    """

    def __init__(self, keys: Sequence[ApiKey] = ()) -> None:
        self._access = {
            key.digest(): key.access(f"key {number}") for number, key in enumerate(keys, 1)
        }
        self.is_empty = not self._access
        self._lengths = {len(key.key.encode("utf-8", "surrogateescape")) for key in keys}
        self._has_hashes = any(key.is_hashed for key in keys)
        self._shortest = 1 if self._has_hashes else min(self._lengths, default=1)

    def access(self, secret: bytes) -> Access | None:
        """Return what the holder of *secret* may do, or None when it is no key of ours."""
        return self._access.get(sha256(secret).digest())

    def first_of(
        self, authorizations: Sequence[bytes], api_keys: Sequence[bytes]
    ) -> tuple[Access | None, bool]:
        """Return what the first valid credential of a request allows, and how it was sent.

        The order is llama-swap's: passwords of Basic, then Bearer, then x-api-key. The rights of
        two keys are never joined.

        Args:
            authorizations: Values of its Authorization fields.
            api_keys: Values of its x-api-key fields.

        Returns:
            The access, or None without a valid credential; and whether the client itself must
            have added it. A browser repeats a password of Basic by itself, for any page.
        """
        tried: list[tuple[bytes, bool]] = []
        bearers: list[tuple[bytes, bool]] = []
        for value in authorizations:
            secret, is_basic = _from_authorization(value)
            (tried if is_basic else bearers).append((secret, not is_basic))
        tried += bearers
        tried += [(value, True) for value in api_keys]
        for secret, is_added in tried[:_TRIED]:
            access = self._access.get(sha256(secret).digest()) if secret else None
            if access is not None:
                return access, is_added
        return None, False

    # ---- keys that are not to be passed on
    def without_keys(self, headers: Headers) -> Headers:
        """Return *headers* without the fields whose value is, or holds, one of our keys.

        A client may send the same key in a field that other APIs read: ``api-key``,
        ``x-goog-api-key``, a cookie.
        """
        if self.is_empty:
            return headers
        return [field for field in headers if not self._holds_key(field[1])]

    def query_without_keys(self, query: bytes) -> bytes:
        """Return *query* without the parameters that are, or hold, one of our keys."""
        if self.is_empty or not self._holds_key(query):
            return query
        parts = (self._without_key(part) for part in query.split(b"&"))
        return b"&".join(part for part in parts if part is not None)

    def _without_key(self, part: bytes) -> bytes | None:
        """Return *part* of a query without what holds a key of ours; None: nothing is left."""
        if not self._holds_key(part):
            return part
        pieces = part.split(b";")  # some clients and servers separate by it
        kept = [piece for piece in pieces if not self._holds_key(piece)]
        return b";".join(kept) if 0 < len(kept) < len(pieces) else None

    def target_without_keys(self, target: bytes) -> bytes:
        """Return *target*, a path with or without a query, as `query_without_keys` does."""
        path, mark, query = target.partition(b"?")
        if not mark or self.is_empty:
            return target
        kept = self.query_without_keys(query)
        return path + b"?" + kept if kept or not query else path

    def _holds_key(self, value: bytes) -> bool:
        """Return True if *value*, or a part of it between separators, is a key; in linear time."""
        if len(value) < self._shortest:
            return False
        if self._is_key(value):
            return True
        marks = value.translate(None, _PLAIN)
        if not marks:
            return False  # one word, as most fields are
        if marks == b"=":
            return any(map(self._is_known, value.split(b"=")))
        words = {*value.split(b"&"), *value.translate(_SPLIT).split()}
        words |= _values(words)
        if any(map(self._is_key, words)) or self._has_word(value):
            return True
        return b"%" in value and self._has_word(unquote_to_bytes(value))

    def _has_word(self, value: bytes) -> bool:
        """Return True if a key stands in *value* as it is."""
        words = {*value.translate(_SPLIT).split(), *value.translate(_SPLIT_FINE).split()}
        words |= _values(words)
        words.update(value.translate(_SPLIT_FINEST).split())
        return any(map(self._is_known, words))

    def redacted(self, fields: dict[str, str]) -> dict[str, str]:
        """Return *fields*, names and values as they are shown, without values that hold a key."""
        if self.is_empty:
            return fields
        return {
            name: REDACTED if self._holds_key(value.encode("latin-1", "replace")) else value
            for name, value in fields.items()
        }

    def protocols_without_keys(self, protocols: Iterable[str]) -> list[str]:
        """Return the websocket *protocols* without those that carry one of our keys.

        Scripts of web pages cannot add a field to a websocket, so some put a key there:
        ``openai-insecure-api-key.KEY``.
        """
        return [
            name for name in protocols
            if not any(self._is_key(part.encode()) for part in (name, name.partition(".")[2]))
        ]  # fmt: skip

    def _is_key(self, value: bytes) -> bool:
        if not 0 < len(value) <= _LONGEST_BYTES:
            return False
        if self._is_known(value):
            return True
        is_encoded = b"%" in value or b"+" in value
        return is_encoded and self._is_known(unquote_to_bytes(value.replace(b"+", b" ")))

    def _is_known(self, value: bytes) -> bool:
        if len(value) not in self._lengths and not (
            self._has_hashes and 0 < len(value) <= _LONGEST_BYTES
        ):
            return False  # without hashing what cannot be a key
        return sha256(value).digest() in self._access


def _values(words: set[bytes]) -> set[bytes]:
    """Return what stands before and behind the first ``=`` of *words*, and in quotes."""
    found = {side for word in words if b"=" in word for side in word.partition(b"=")[::2]}
    return found | {word.strip(_QUOTES) for word in (*words, *found)}


def _from_authorization(value: bytes) -> tuple[bytes, bool]:
    """Return the secret in a value of Authorization, empty where there is none; is it Basic."""
    if value[:7] == b"Bearer ":
        return value[7:].strip(), False  # as nearly all send it
    scheme, _, rest = value.strip().partition(b" ")
    rest = rest.strip()
    kind = scheme.lower()
    if kind == b"bearer":
        return rest, False
    if kind != b"basic":
        return b"", False
    try:
        _, mark, password = base64.b64decode(rest, validate=True).partition(b":")
    except (binascii.Error, ValueError):
        return b"", True
    return (password if mark else b""), True
