"""Checks of the Origin and Host headers, and of forwarded addresses. Pure.

A web page in a browser can send requests to servers on this machine, and only these checks keep it
from unloading models or reading responses. Origin names the page; Host names the server as the
page knows it, which reveals DNS rebinding (CVE-2024-28224 in Ollama). Unlike llama-swap, no
response is readable by every page.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from urllib.parse import urlsplit

from ...http1.asgi_types import Headers
from ..options import is_like

#: Schemes of desktop and mobile applications that show pages of their own: Electron, Tauri,
#: Capacitor, Ionic, Visual Studio Code. No web site has an origin of these.
APP_SCHEMES = frozenset(
    {"app", "tauri", "capacitor", "ionic", "vscode-webview", "vscode-file"}
)  # fmt: skip

_KNOWN_LIMIT = 256  # cached decisions; a client could send any number of names
_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_METHODS = b"GET, POST, PUT, PATCH, DELETE, OPTIONS"
_FIELDS = b"Content-Type, Authorization, Accept, X-Requested-With"
_MAX_AGE_S = b"86400"
_KEY_FIELDS = frozenset({b"authorization", b"x-api-key"})


def is_loopback_host(host: str) -> bool:
    """Return True if *host*, a name or an address without a port, is a loopback name."""
    name = host.lower().removesuffix(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return _address(name).is_loopback
    except ValueError:
        return False


def host_name(value: str) -> str | None:
    """Return the name in the Host header *value*, without its port; None if it is malformed."""
    match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+))(?::\d{1,5})?", value)
    return None if match is None else match[1] or match[2]


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """Return the address in *text*; an IPv4 address that is mapped to IPv6 becomes IPv4.

    Raises:
        ValueError: *text* is no address.
    """
    found = ipaddress.ip_address(text)
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return found if mapped is None else mapped


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _without_last_dot(text: str) -> str:
    """Return *text*, a name with or without a port, without the dot at the end of the name."""
    name, colon, port = text.partition(":")
    return name.removesuffix(".") + colon + port


class HostCheck:
    """Checks Host headers of connections to a loopback address.

    Accepts names of this machine, IP addresses (DNS rebinding needs a name), and *allowed* names.

    Args:
        allowed: Names, in any case, with or without a port; ``*`` in a name matches anything. A
            name without a port matches every port, and one with the port 80 or 443 also Host
            headers without a port, since clients leave these ports out. A dot at the end of a
            name has no meaning.
    """

    def __init__(self, allowed: Iterable[str] = ()) -> None:
        self._allowed = tuple(_without_last_dot(name.lower()) for name in allowed)
        self._known: dict[bytes, bool] = {}

    def allows(self, value: bytes) -> bool:
        """Return True if *value* is accepted."""
        known = self._known.get(value)
        if known is None:
            known = self._decide(value.decode("latin-1").lower())
            if len(self._known) < _KNOWN_LIMIT:
                self._known[value] = known
        return known

    def _decide(self, value: str) -> bool:
        name = host_name(value)
        if name is None:
            return False
        if is_loopback_host(name) or _is_address(name):
            return True
        name, value = name.removesuffix("."), _without_last_dot(value)
        full = [value] if ":" in value else [f"{name}:80", f"{name}:443"]
        return any(
            is_like(text, pattern)
            for pattern in self._allowed
            for text in (full if ":" in pattern else [name])
        )


class OriginCheck:
    """Checks Origin headers of browsers.

    Args:
        allowed: See ``ProxyOptions.allowed_origins``.
    """

    def __init__(self, allowed: Iterable[str] = ()) -> None:
        self._allowed = tuple(origin.lower().rstrip("/") for origin in allowed)
        self._known: dict[tuple[bytes, bytes], bool] = {}

    def allows(self, origin: bytes, host: bytes) -> bool:
        """Return True if a page of *origin* may use the proxy under the name *host*."""
        known = self._known.get((origin, host))
        if known is None:
            known = self._decide(origin.decode("latin-1").lower(), host.decode("latin-1").lower())
            if len(self._known) < _KNOWN_LIMIT:
                self._known[origin, host] = known
        return known

    def _decide(self, origin: str, host: str) -> bool:
        if any(is_like(origin, pattern) for pattern in self._allowed):
            return True
        try:
            url = urlsplit(origin)
            name = url.hostname
        except ValueError:
            return False
        if url.scheme in APP_SCHEMES:
            return bool(url.netloc)
        if url.scheme not in ("http", "https") or name is None:
            return False
        return url.netloc == host or is_loopback_host(name)


class ProxyTrust:
    """Decides which clients may report the address of another client (X-Forwarded-For).

    Args:
        trusted: Addresses and networks.

    Raises:
        ValueError: An entry is neither.
    """

    def __init__(self, trusted: Iterable[str] = ()) -> None:
        self._networks = [ipaddress.ip_network(text, strict=False) for text in trusted]
        self._known: dict[str, bool] = {}

    def allows(self, address: str | None) -> bool:
        """Return True if the client at *address* is a trusted proxy."""
        if not self._networks or address is None:
            return False
        known = self._known.get(address)
        if known is None:
            known = self._decide(address)
            if len(self._known) < _KNOWN_LIMIT:
                self._known[address] = known
        return known

    def _decide(self, address: str) -> bool:
        try:
            found = _address(address)
        except ValueError:
            return False
        return any(found in network for network in self._networks)


def asks_for_key(headers: Headers) -> bool:
    """Return True if a preflight announces a request to which the page adds a key."""
    return any(
        part.strip().lower() in _KEY_FIELDS
        for name, value in headers if name == b"access-control-request-headers"
        for part in value.split(b",")
    )  # fmt: skip


def preflight(headers: Headers, origin: bytes | None) -> Headers:
    """Return the headers of the response to an OPTIONS request.

    Args:
        headers: Headers of the request, names in lower case.
        origin: Its origin if that is allowed; None grants nothing.
    """
    if origin is None:
        return [(b"allow", _METHODS), (b"vary", b"origin")]
    asked = [value for name, value in headers if name == b"access-control-request-headers"]
    tokens = [part.strip() for value in asked for part in value.split(b",")]
    fields = b", ".join(token for token in tokens if _TOKEN.fullmatch(token))
    granted = [
        (b"access-control-allow-origin", origin),
        (b"access-control-allow-methods", _METHODS),
        (b"access-control-allow-headers", fields or _FIELDS),
        (b"access-control-max-age", _MAX_AGE_S),
        (b"vary", b"origin"),
    ]
    if any(name == b"access-control-request-private-network" for name, _ in headers):
        granted.append((b"access-control-allow-private-network", b"true"))
    return granted
