"""API keys, their scopes and their models.

A request carries its key as ``Authorization: Bearer``, as the password of ``Authorization: Basic``
or as ``x-api-key``. A key is looked up by its hash, so that the response time does not depend on
how much of a guessed key is right. Unlike llama-swap, which tries one credential, the first valid
one counts, keys can be limited, and none is forwarded except to models that ask for it.
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

#: Names of headers that carry credentials, in lower case.
CREDENTIALS = frozenset({b"authorization", b"proxy-authorization", b"x-api-key"})

#: Names of headers, in lower case, by which some servers override the method or the path of a
#: request, which admission has checked.
OVERRIDES = frozenset(
    {
        b"x-http-method-override", b"x-http-method", b"x-method-override",
        b"x-original-url", b"x-rewrite-url",
    }
)  # fmt: skip

#: Names of headers that are not forwarded where keys are configured.
NOT_FORWARDED = CREDENTIALS | OVERRIDES

_MAX_CREDENTIALS = 8  # that are checked for one request, which limits its guesses
_SPLIT = bytes.maketrans(b";,&?", b"    ")
_SPLIT_FINE = bytes.maketrans(b";,&?\"':{}", b" " * 9)
_SPLIT_FINEST = bytes.maketrans(b";,&?\"':{}=", b" " * 10)
_PLAIN = string.ascii_letters.encode() + string.digits.encode() + b"-._~/"  # no separators
_QUOTES = b"\"'"
_LONGEST_BYTES = 512  # of a part of a header or query that is compared with the keys


class ApiKeys:
    """All keys of a configuration.

    Attributes:
        is_empty: No key is configured, so that no request needs one.
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
        """Return the rights of the key *secret*, or None if there is no such key."""
        return self._access.get(sha256(secret).digest())

    def first_valid(
        self, authorizations: Sequence[bytes], api_keys: Sequence[bytes]
    ) -> tuple[Access | None, bool]:
        """Return the rights of the first valid credential of a request, and how it was sent.

        The order is that of llama-swap: passwords of Basic, Bearer, x-api-key. The rights of two
        keys are never combined.

        Args:
            authorizations: Values of the Authorization headers.
            api_keys: Values of the x-api-key headers.

        Returns:
            The rights, or None without a valid credential; and True if the client itself must
            have added it. A browser repeats a password of Basic by itself, for any page.
        """
        candidates: list[tuple[bytes, bool]] = []
        bearers: list[tuple[bytes, bool]] = []
        for value in authorizations:
            secret, is_basic = _from_authorization(value)
            (candidates if is_basic else bearers).append((secret, not is_basic))
        candidates += bearers
        candidates += [(value, True) for value in api_keys]
        for secret, is_added in candidates[:_MAX_CREDENTIALS]:
            access = self._access.get(sha256(secret).digest()) if secret else None
            if access is not None:
                return access, is_added
        return None, False

    # ---- removing keys from forwarded requests
    def without_keys(self, headers: Headers) -> Headers:
        """Return *headers* without those whose value is or contains one of the keys.

        A client may send the same key in a header of another API, such as ``api-key``,
        ``x-goog-api-key`` or a cookie.
        """
        if self.is_empty:
            return headers
        return [field for field in headers if not self._holds_key(field[1])]

    def query_without_keys(self, query: bytes) -> bytes:
        """Return *query* without the parameters that are or contain one of the keys."""
        if self.is_empty or not self._holds_key(query):
            return query
        parts = (self._without_key(part) for part in query.split(b"&"))
        return b"&".join(part for part in parts if part is not None)

    def _without_key(self, part: bytes) -> bytes | None:
        """Return *part* of a query without values that contain a key; None if nothing is left."""
        if not self._holds_key(part):
            return part
        pieces = part.split(b";")  # a separator for some clients and servers
        kept = [piece for piece in pieces if not self._holds_key(piece)]
        return b";".join(kept) if 0 < len(kept) < len(pieces) else None

    def target_without_keys(self, target: bytes) -> bytes:
        """Return *target*, a path with or without a query, without the keys in its query."""
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
            return False  # one word, as most values are
        if marks == b"=":
            return any(map(self._is_known, value.split(b"=")))
        words = {*value.split(b"&"), *value.translate(_SPLIT).split()}
        words |= _values(words)
        if any(map(self._is_key, words)) or self._has_word(value):
            return True
        return b"%" in value and self._has_word(unquote_to_bytes(value))

    def _has_word(self, value: bytes) -> bool:
        """Return True if *value* contains a key that is not encoded."""
        words = {*value.translate(_SPLIT).split(), *value.translate(_SPLIT_FINE).split()}
        words |= _values(words)
        words.update(value.translate(_SPLIT_FINEST).split())
        return any(map(self._is_known, words))

    def redacted(self, fields: dict[str, str]) -> dict[str, str]:
        """Return *fields*, names and values of headers, without values that contain a key."""
        if self.is_empty:
            return fields
        return {
            name: REDACTED if self._holds_key(value.encode("latin-1", "replace")) else value
            for name, value in fields.items()
        }

    def redacted_text(self, text: str) -> str:
        """Return *text* without the lines that contain a key."""
        if self.is_empty or not text:
            return text
        return "\n".join(
            REDACTED if self._holds_key(line.encode("utf-8", "replace")) else line
            for line in text.split("\n")
        )

    def protocols_without_keys(self, protocols: Iterable[str]) -> list[str]:
        """Return the websocket *protocols* without those that contain one of the keys.

        Scripts of web pages cannot add a header to a websocket, so some put a key into a
        subprotocol: ``openai-insecure-api-key.KEY``.
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
            return False  # avoids a hash for most values
        return sha256(value).digest() in self._access


#: No keys, for servers that get those of clients.
NO_KEYS = ApiKeys()


def _values(words: set[bytes]) -> set[bytes]:
    """Return the parts before and after the first ``=`` of *words*, and all without quotes."""
    found = {side for word in words if b"=" in word for side in word.partition(b"=")[::2]}
    return found | {word.strip(_QUOTES) for word in (*words, *found)}


def _from_authorization(value: bytes) -> tuple[bytes, bool]:
    """Return the secret in a value of Authorization, maybe empty, and True if it is Basic."""
    if value[:7] == b"Bearer ":
        return value[7:].strip(), False  # the usual spelling
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
