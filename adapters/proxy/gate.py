"""What every request passes before it reaches a handler: Host, origin, key, scope."""

from __future__ import annotations

from dataclasses import dataclass

from .asgi_types import Headers, Scope
from .auth import EVERYTHING, Access, KeyRing, secret_of
from .options import ProxyOptions
from .origins import HostCheck, OriginCheck, is_loopback_host
from .routes import Route

_LOOKED_AT = frozenset(
    {b"host", b"origin", b"sec-fetch-site", b"authorization", b"x-api-key", b"via"}
)
_PLAIN_TYPES = (b"text/plain", b"multipart/form-data")  # curl -d says urlencoded and means JSON


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request goes no further.

    Attributes:
        status: HTTP status.
        message: For a person.
        code: For a program; empty is the one of the status.
        headers: Fields of the answer.
    """

    status: int
    message: str
    code: str = ""
    headers: tuple[tuple[bytes, bytes], ...] = ()


@dataclass(frozen=True, slots=True)
class Pass:
    """A request may go on.

    Attributes:
        access: What its key allows.
        origin: Of the page that asked, if that is allowed to read the answer; else None.
    """

    access: Access = EVERYTHING
    origin: bytes | None = None


_PASS = Pass()
_UNAUTHORIZED = Refusal(
    401,
    "unauthorized: invalid or missing API key",
    headers=((b"www-authenticate", b'Basic realm="swapchart"'),),
)
_MISDIRECTED = Refusal(
    421,
    "the Host field does not name this machine; add the name to the allowed hosts if it is ours",
    "host_not_allowed",
)
_CROSS_SITE = Refusal(
    403,
    "a page of another site may not do that; add its origin to the allowed ones if it is yours",
    "origin_not_allowed",
)
_LOOP = Refusal(508, "this request has been here before: peers point at each other", "peer_loop")
_NOT_JSON = Refusal(415, "expected a body of type application/json", "unsupported_media_type")


class Gate:
    """Decides about the heads of requests; shared by HTTP and websockets.

    Attributes:
        ring: The keys.
        mark: How this proxy is called in Via fields; None: it is not.
    """

    def __init__(self, options: ProxyOptions) -> None:
        self.ring = KeyRing(options.keys)
        self._hosts = HostCheck(options.allowed_hosts)
        self._origins = OriginCheck(options.allowed_origins)
        self._check_host = options.check_host
        self._loopback: dict[str, bool] = {}
        self.mark = b"swapchart-" + options.instance_id.encode() if options.instance_id else None

    def admit(self, scope: Scope, route: Route | None) -> Pass | Refusal:
        """Decide about one request.

        Args:
            scope: Of ASGI; ``http`` or ``websocket``.
            route: Where it wants to; None: nowhere we know, and that is said to friends only.
        """
        host = origin = site = None
        authorizations: list[bytes] = []
        api_keys: list[bytes] = []
        for name, value in scope["headers"]:
            if name not in _LOOKED_AT:
                continue
            if name == b"host":
                host = value
            elif name == b"authorization":
                authorizations.append(value)
            elif name == b"x-api-key":
                api_keys.append(value)
            elif name == b"origin":
                origin = value
            elif name == b"sec-fetch-site":
                site = value
            elif self.mark is not None and self.mark in value:
                return _LOOP
        if host is not None and self._is_checked(scope) and not self._hosts.allows(host):
            return _MISDIRECTED
        if origin is not None and not self._origins.allows(origin, host or b""):
            if route is not None and route.changes:
                return _CROSS_SITE
            origin = None
        elif origin is None and site == b"cross-site" and route is not None and route.changes:
            return _CROSS_SITE
        if self.ring.is_empty or (route is not None and route.access == "open"):
            return _PASS if origin is None else Pass(EVERYTHING, origin)
        secret = secret_of(authorizations, api_keys)
        access = None if secret is None else self.ring.access(secret)
        if access is None:
            return _UNAUTHORIZED
        needed = None if route is None else route.access
        if needed in ("infer", "admin") and needed not in access.scopes:
            return Refusal(403, f"forbidden: this API key has no {needed} scope")
        return Pass(access, origin)

    def origin_of(self, headers: Headers) -> bytes | None:
        """Return the origin of a preflight request if it is allowed, else None."""
        fields = dict(headers)
        origin = fields.get(b"origin")
        if origin is None or not self._origins.allows(origin, fields.get(b"host", b"")):
            return None
        return origin

    def host_refusal(self, scope: Scope) -> Refusal | None:
        """Return why the Host field of a preflight request is refused, or None."""
        host = dict(scope["headers"]).get(b"host")
        if host is not None and self._is_checked(scope) and not self._hosts.allows(host):
            return _MISDIRECTED
        return None

    def _is_checked(self, scope: Scope) -> bool:
        if self._check_host is not None:
            return self._check_host
        server = scope.get("server")
        if server is None:
            return False
        address: str = server[0]
        known = self._loopback.get(address)
        if known is None:
            known = self._loopback[address] = is_loopback_host(address)  # as many as we have
        return known


def json_refusal(headers: Headers) -> Refusal | None:
    """Refuse what an HTML form could send to a route that takes JSON; else None."""
    kind = dict(headers).get(b"content-type", b"").lower()
    return _NOT_JSON if kind.startswith(_PLAIN_TYPES) else None
