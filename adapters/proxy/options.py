"""Options of the proxy towards its clients, independent of the models. A value."""

from __future__ import annotations

import re
from hashlib import sha256
from pathlib import Path
from typing import Literal, TypeAlias

from ...dataclass import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxyOptions:
    """Options that the composition root sets.

    Attributes:
        keys: API keys; empty means that no key is needed.
        ollama_key: The one of them that clients of Ollama's listener have that send no valid key;
            empty means none.
        allowed_origins: Web pages that may use the API from a browser, besides those of this
            machine and our own: ``https://chat.example.org``; ``*`` in it matches anything.
        allowed_hosts: Further values of Host that are accepted on a loopback address.
        check_host: Reject unknown values of Host (DNS rebinding). None means on connections to a
            loopback address.
        trusted_proxies: Addresses and networks whose X-Forwarded-* headers are passed on.
        json_limit_bytes: Largest body that is read completely.
        body_budget_bytes: Memory for all bodies that are read completely.
        body_wait_s: Longest wait of a body for its part of that memory, in seconds.
        form_limit_bytes: Largest body of a form, which is streamed.
        form_head_bytes: Longest part of a form before its ``model``; more than 1 MiB of it is kept
            on disk.
        loading_tick_s: Interval of keep-alive events while a model loads, in seconds.
        heartbeat_s: Interval of comments in an idle event stream, in seconds.
        listeners: Maximum number of clients that stream events and logs at once; >= 1.
        listeners_per_key: The same for one API key, where keys are configured; >= 1.
        capture_bytes: Memory for captured requests and responses; 0 disables captures.
        session_headers: Names of headers that identify a client's session; for the UI.
        start_on_get: Which GET requests may start a model: ``all``, ``pages`` (a browser opens a
            page, or the path is ``/``) or ``none``.
        include_aliases: List aliases as separate models.
        performance_every_s: Interval of samples of the machine, in seconds; None disables them.
        ui_root: Folder of the web UI; None disables it.
        instance_id: Identifies this proxy in Via headers, to detect loops of peers.
        version: Shown by ``/api/version``.
        commit: Likewise.
        build_date: Likewise.
    """

    keys: tuple[ApiKey, ...] = ()
    ollama_key: str = field(default="", repr=False)
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
    start_on_get: Literal["all", "pages", "none"] = "all"
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


KeyScope: TypeAlias = Literal["infer", "admin", "metrics"]


_EVERY_SCOPE: frozenset[KeyScope] = frozenset(("infer", "admin"))


_INFER_ONLY: frozenset[KeyScope] = frozenset(("infer",))


_HASHED = "sha256:"


_NAMESPACE = b"swapchart conversations "  # so that files do not hold the hash of a key itself


_HASH = re.compile(r"sha256:[0-9A-Fa-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """One API key.

    Attributes:
        key: The key itself, or ``sha256:`` and the 64 hexadecimal digits of its hash.
        scopes: ``infer`` for requests to models, ``metrics`` for ``/metrics`` and nothing else,
            ``admin`` for everything but requests to models. None means ``infer`` and ``admin``, or
            only ``infer`` for a key with *models*.
        models: Names or patterns of the models it may use, as requests name them or by their ids;
            ``*`` matches anything. None means all models.
        holder: Name for its holder in the queue; empty means a name by its place.
    """

    key: str = field(repr=False)
    scopes: frozenset[KeyScope] | None = None
    models: tuple[str, ...] | None = None
    holder: str = ""

    def access(self, client: str) -> Access:
        """Return what the key allows to *client*, a name for a holder that has none."""
        default = _EVERY_SCOPE if self.models is None else _INFER_ONLY
        scopes = default if self.scopes is None else self.scopes
        namespace = sha256(_NAMESPACE + self.digest()).hexdigest()[:32]
        return Access(scopes, self.models, self.holder or client, namespace=namespace)

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
    """Rights of a request.

    Attributes:
        scopes: See `ApiKey`.
        models: See `ApiKey`.
        client: Identifies the API key; empty if no keys are configured.
        is_visit: The request is a click on a link of another site, which may open a page of a
            model and nothing else; its handler checks that.
        namespace: Namespace of conversations of the API key; empty if no keys are configured.
    """

    scopes: frozenset[KeyScope] = _EVERY_SCOPE
    models: tuple[str, ...] | None = None
    client: str = field(default="", compare=False)
    is_visit: bool = False
    namespace: str = field(default="", compare=False, repr=False)

    def allows_model(self, *names: str) -> bool:
        """Return True if one of *names*, all of the same model, is allowed."""
        if self.models is None:
            return True
        return any(
            name == pattern or ("*" in pattern and is_like(name, pattern))
            for name in names for pattern in self.models
        )  # fmt: skip


#: What all requests may do if no keys are configured.
EVERYTHING = Access()
