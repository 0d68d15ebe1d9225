"""How the proxy behaves towards its clients, whatever models it serves. A value."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Literal, TypeAlias


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxyOptions:
    """What the composition root decides.

    Attributes:
        keys: Empty: everything is open.
        allowed_origins: Web pages that may use the API from a browser, besides those of this
            machine and our own: ``https://chat.example.org``; ``*`` in it matches anything.
        allowed_hosts: Further values of Host that are ours on a loopback address.
        check_host: Refuse foreign values of Host (DNS rebinding). None: on connections that come
            in at a loopback address.
        trusted_proxies: Addresses and networks whose X-Forwarded-* fields cross.
        json_limit_bytes: Largest body that is read whole.
        body_budget_bytes: All bodies that are read whole take so much memory together.
        body_wait_s: How long one may wait for its part of that.
        form_limit_bytes: Largest body of a form, which is passed on as it comes.
        form_head_bytes: So much of a form may come before its ``model``; it is kept on disk
            beyond a megabyte.
        loading_tick_s: Between two signs of life while a model loads, to a client that asked
            for a stream and for this.
        heartbeat_s: Between two comments in an event stream with nothing to say.
        listeners: Clients that may listen to events and logs at a time; >= 1.
        listeners_per_key: Those of one key, where keys are configured; >= 1.
        capture_bytes: Room for captured requests and answers, in memory; 0: none are captured.
        session_headers: Header fields that name a client's session; for the UI.
        include_aliases: List aliases as models of their own.
        performance_every_s: Between two samples of the machine; None: never.
        ui_root: Folder of the web UI; None: there is none.
        instance_id: Tells this proxy from others when they call each other in a circle.
        version: Shown by ``/api/version``.
        commit: Likewise.
        build_date: Likewise.
    """

    keys: tuple[ApiKey, ...] = ()
    allowed_origins: tuple[str, ...] = ()
    allowed_hosts: tuple[str, ...] = ()
    check_host: bool | None = None
    trusted_proxies: tuple[str, ...] = ()
    json_limit_bytes: int = 64 << 20
    body_budget_bytes: int = 512 << 20
    body_wait_s: float = 10.0
    form_limit_bytes: int = 4 << 30
    form_head_bytes: int = 2 << 30
    loading_tick_s: float = 0.75
    heartbeat_s: float = 15.0
    listeners: int = 256
    listeners_per_key: int = 64
    capture_bytes: int = 0
    session_headers: tuple[str, ...] = ()
    include_aliases: bool = False
    performance_every_s: float | None = None
    ui_root: Path | None = None
    instance_id: str = ""
    version: str = ""
    commit: str = ""
    build_date: str = ""


def is_like(text: str, pattern: str) -> bool:
    """Return True if *text* is like *pattern*, in which ``*`` is anything; in linear time."""
    first, *others = pattern.split("*")
    if not others:
        return text == first
    *middle, last = others
    place, end = len(first), len(text) - len(last)
    if place > end or not text.startswith(first) or not text.endswith(last):
        return False
    for piece in middle:
        found = text.find(piece, place, end)
        if found < 0:
            return False
        place = found + len(piece)
    return True


KeyScope: TypeAlias = Literal["infer", "admin"]


_EVERY_SCOPE: frozenset[KeyScope] = frozenset(("infer", "admin"))


_INFER_ONLY: frozenset[KeyScope] = frozenset(("infer",))


_HASHED = "sha256:"


_HASH = re.compile(r"sha256:[0-9A-Fa-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """One key.

    Attributes:
        key: The key itself, or ``sha256:`` and the 64 hexadecimal digits of its hash.
        scopes: ``infer``: ask models; ``admin``: everything else. None means both, and ``infer``
            alone for a key with *models*.
        models: Names or patterns of the models it is good for, as requests name them or by their
            ids; ``*`` in one is anything. None is all.
    """

    key: str = field(repr=False)
    scopes: frozenset[KeyScope] | None = None
    models: tuple[str, ...] | None = None

    def access(self, client: str) -> Access:
        """Return what the holder of the key may do, under the name *client*."""
        default = _EVERY_SCOPE if self.models is None else _INFER_ONLY
        return Access(default if self.scopes is None else self.scopes, self.models, client)

    @property
    def is_hashed(self) -> bool:
        """Return True if `key` is a hash and not the key itself."""
        return _HASH.fullmatch(self.key) is not None

    def digest(self) -> bytes:
        """Return the SHA-256 of the key; shape (32,)."""
        if self.is_hashed:
            return bytes.fromhex(self.key[len(_HASHED) :])
        return sha256(self.key.encode("utf-8", "surrogateescape")).digest()


@dataclass(frozen=True, slots=True)
class Access:
    """What a request may do.

    Attributes:
        scopes: See `ApiKey`.
        models: See `ApiKey`.
        client: Tells the holders of keys apart, and no key; empty: everybody.
        is_visit: The request is a click on a link of another site, which may open a page of a
            model and nothing else; its handler checks that.
    """

    scopes: frozenset[KeyScope] = _EVERY_SCOPE
    models: tuple[str, ...] | None = None
    client: str = field(default="", compare=False)
    is_visit: bool = False

    def allows_model(self, *names: str) -> bool:
        """Return True if one of *names*, all of the same model, is allowed."""
        if self.models is None:
            return True
        return any(
            name == pattern or ("*" in pattern and is_like(name, pattern))
            for name in names for pattern in self.models
        )  # fmt: skip


#: What everybody may do where no keys are configured.
EVERYTHING = Access()
