"""Who may do what: API keys, their scopes, and the models they are good for.

A request may carry its key as ``Authorization: Bearer``, as the password of ``Authorization:
Basic`` or as ``x-api-key``, because its clients do. A key is looked up by its hash, which nobody
can steer: the time an answer takes tells nothing of how much of a key was right.

Source: llama-swap.md section 5.4. Unlike llama-swap, a request with two different keys is refused,
keys can be limited, and none is ever passed on.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from hashlib import sha256
from typing import Literal, TypeAlias

KeyScope: TypeAlias = Literal["infer", "admin"]

#: Fields, in lower case, that carry credentials; none crosses once we have consumed them.
CREDENTIALS = frozenset({b"authorization", b"proxy-authorization", b"x-api-key"})

_EVERY_SCOPE: frozenset[KeyScope] = frozenset(("infer", "admin"))
_HASHED = "sha256:"
_DIGEST_DIGITS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """One key.

    Attributes:
        key: The key itself, or ``sha256:`` and the 64 hexadecimal digits of its hash.
        scopes: ``infer``: ask models; ``admin``: everything else.
        models: Names or patterns (``qwen*``) of the models it is good for, as requests name them
            or by their ids; None is all.
    """

    key: str = field(repr=False)
    scopes: frozenset[KeyScope] = _EVERY_SCOPE
    models: tuple[str, ...] | None = None

    def digest(self) -> bytes:
        """Return the SHA-256 of the key; shape (32,)."""
        text = self.key
        if text.startswith(_HASHED) and len(text) == len(_HASHED) + _DIGEST_DIGITS:
            try:
                return bytes.fromhex(text[len(_HASHED) :])
            except ValueError:
                pass  # it is a key that looks like a hash
        return sha256(text.encode("utf-8", "surrogateescape")).digest()


@dataclass(frozen=True, slots=True)
class Access:
    """What a request may do.

    Attributes:
        scopes: See `ApiKey`.
        models: See `ApiKey`.
        client: Tells the holders of keys apart, and no key; empty: everybody.
    """

    scopes: frozenset[KeyScope] = _EVERY_SCOPE
    models: tuple[str, ...] | None = None
    client: str = field(default="", compare=False)

    def allows_model(self, *names: str) -> bool:
        """Tell whether one of *names*, all of the same model, is allowed."""
        if self.models is None:
            return True
        return any(fnmatchcase(name, pattern) for name in names for pattern in self.models)


#: What everybody may do where no keys are configured.
EVERYTHING = Access()


class KeyRing:
    """All keys of a configuration.

    Attributes:
        is_empty: No keys: everything is open.
    """

    def __init__(self, keys: Iterable[ApiKey] = ()) -> None:
        self._access = {
            key.digest(): Access(key.scopes, key.models, f"key {number}")
            for number, key in enumerate(keys, 1)
        }
        self.is_empty = not self._access

    def access(self, secret: bytes) -> Access | None:
        """Return what the holder of *secret* may do, or None when it is no key of ours."""
        return self._access.get(sha256(secret).digest())


def secret_of(authorizations: Sequence[bytes], api_keys: Sequence[bytes]) -> bytes | None:
    """Return the key that a request carries; None: none, or several that differ.

    Args:
        authorizations: Values of its Authorization fields.
        api_keys: Values of its x-api-key fields.
    """
    if not api_keys and len(authorizations) == 1 and authorizations[0][:7] == b"Bearer ":
        return authorizations[0][7:].strip() or None  # as nearly all send it
    found = {value for value in map(_from_authorization, authorizations) if value}
    found.update(value for value in api_keys if value)
    return found.pop() if len(found) == 1 else None


def _from_authorization(value: bytes) -> bytes | None:
    scheme, _, rest = value.strip().partition(b" ")
    rest = rest.strip()
    kind = scheme.lower()
    if kind == b"bearer":
        return rest
    if kind != b"basic":
        return None
    try:
        _, mark, password = base64.b64decode(rest, validate=True).partition(b":")
    except (binascii.Error, ValueError):
        return None
    return password if mark else None
