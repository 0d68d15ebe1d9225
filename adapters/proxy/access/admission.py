"""What every request passes before it reaches a handler: Host, origin, key, scope.

The tables of docs/security.md say the same for people.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ...http1.asgi_types import Headers, Scope
from ..options import EVERYTHING, Access, ProxyOptions
from ..routing import Route
from .api_keys import ApiKeys
from .origins import HostCheck, OriginCheck, asks_for_key, host_name, is_loopback_host
from .refusal_log import RefusalLog, shown

_LOOKED_AT = frozenset(
    {
        b"host", b"origin", b"authorization", b"x-api-key", b"via",
        b"sec-fetch-site", b"sec-fetch-mode", b"sec-fetch-user", b"sec-fetch-dest",
    }
)  # fmt: skip
_PLAIN_TYPES = (b"text/plain", b"multipart/form-data")  # curl -d says urlencoded and means JSON
#: A click on a link that opens a page in a tab of its own, as browsers tell it.
_CLICK = (b"navigate", b"?1", b"document")
_SECURITY = "docs/security.md"


@dataclass(frozen=True, slots=True)
class Denied:
    """Why a request goes no further.

    Attributes:
        status: HTTP status.
        message: For a person.
        code: For a program; empty is the one of the status.
        headers: Fields of the answer.
        origin: Of the page that asked, if that may read the answer; else None.
    """

    status: int
    message: str
    code: str = ""
    headers: tuple[tuple[bytes, bytes], ...] = ()
    origin: bytes | None = None


@dataclass(frozen=True, slots=True)
class Allowed:
    """A request may go on.

    Attributes:
        access: What its key allows.
        origin: Of the page that asked, if that is allowed to read the answer; else None.
    """

    access: Access = EVERYTHING
    origin: bytes | None = None


_PASS = Allowed()
_UNAUTHORIZED = Denied(
    401,
    "unauthorized: invalid or missing API key",
    headers=((b"www-authenticate", b'Basic realm="swapchart"'),),
)
_LOOP = Denied(508, "this request has been here before: peers point at each other", "peer_loop")
_NOT_JSON = Denied(415, "expected a body of type application/json", "unsupported_media_type")
_SOME_MODELS = Denied(
    403, "forbidden: this is about all models, and the API key is for some (`models` in `apiKeys`)"
)


class _Head:
    """What the gate reads in the fields of one request."""

    __slots__ = ("api_keys", "authorizations", "click", "host", "is_loop", "origin", "site")

    def __init__(self, scope: Scope, mark: bytes | None) -> None:
        self.host: bytes | None = None
        self.origin: bytes | None = None
        self.site: bytes | None = None
        self.click = [b"", b"", b"document"]  # a browser that does not say where it opens a page
        self.authorizations: list[bytes] = []
        self.api_keys: list[bytes] = []
        self.is_loop = False
        for name, value in scope["headers"]:
            if name not in _LOOKED_AT:
                continue
            if name == b"host":
                self.host = value
            elif name == b"authorization":
                self.authorizations.append(value)
            elif name == b"x-api-key":
                self.api_keys.append(value)
            elif name == b"origin":
                self.origin = value
            elif name == b"sec-fetch-site":
                self.site = value
            elif name == b"sec-fetch-mode":
                self.click[0] = value
            elif name == b"sec-fetch-user":
                self.click[1] = value
            elif name == b"sec-fetch-dest":
                self.click[2] = value
            elif mark is not None and mark in value:
                self.is_loop = True

    @property
    def is_click(self) -> bool:
        """Return True for a click on a link: browsers send no Origin with one."""
        return self.origin is None and tuple(self.click) == _CLICK

    @property
    def brings_key(self) -> bool:
        """Return True if the client added what may be a key, which no browser does by itself."""
        return bool(self.api_keys) or any(
            value[:6].lower() != b"basic " for value in self.authorizations
        )


class AdmissionControl:
    """Decides about the heads of requests; shared by HTTP and websockets.

    Attributes:
        ring: The keys.
        mark: How this proxy is called in Via fields; None: it is not.
    """

    def __init__(self, options: ProxyOptions) -> None:
        self.ring = ApiKeys(options.keys)
        self._hosts = HostCheck(options.allowed_hosts)
        self._origins = OriginCheck(options.allowed_origins)
        self._check_host = options.check_host
        self._loopback: dict[str, bool] = {}
        self._log = RefusalLog()
        self.mark = b"swapchart-" + options.instance_id.encode() if options.instance_id else None

    def admit(self, scope: Scope, route: Route | None) -> Allowed | Denied:
        """Decide about one request.

        The method is not looked at beyond what it did for *route*: the answer is kept for all
        requests with the same fields to the same route.

        Args:
            scope: Of ASGI; ``http`` or ``websocket``.
            route: Where it wants to; None: nowhere we know, and that is said to friends only.
        """
        head = _Head(scope, self.mark)
        if head.is_loop:
            return _LOOP
        if route is None or not route.takes_any_host:
            refusal = self._wrong_host(scope, head.host)
            if refusal is not None:
                return refusal
        access: Access | None = EVERYTHING
        is_added = False
        if not self.ring.is_empty:
            access, is_added = self.ring.first_of(head.authorizations, head.api_keys)
        origin, is_visit = head.origin, False
        if not is_added and self._is_foreign(head):
            if access is None and head.brings_key:
                return replace(_UNAUTHORIZED, origin=origin)  # and its page may know why
            if route is not None and route.changes:
                if not (route.is_page and head.is_click):
                    return self._cross_site(head.origin)
                is_visit = True
            origin = None
        if self.ring.is_empty or (route is not None and route.access == "open"):
            access = EVERYTHING
        elif access is None:
            return replace(_UNAUTHORIZED, origin=origin)
        else:
            refusal = _beyond(access, route)
            if refusal is not None:
                return replace(refusal, origin=origin)
        if is_visit:
            return Allowed(replace(access, is_visit=True), origin)
        return _PASS if access is EVERYTHING and origin is None else Allowed(access, origin)

    def origin_of(self, headers: Headers) -> bytes | None:
        """Return the origin of a preflight request if it is allowed, else None.

        A request that will bring a key is announced without it: where keys are configured any page
        may announce one. The request itself must then bring the key.
        """
        fields = dict(headers)
        origin = fields.get(b"origin")
        if origin is None or self._origins.allows(origin, fields.get(b"host", b"")):
            return origin
        return origin if not self.ring.is_empty and asks_for_key(headers) else None

    def host_refusal(self, scope: Scope) -> Denied | None:
        """Return why the Host field of a preflight request is refused, or None."""
        return self._wrong_host(scope, dict(scope["headers"]).get(b"host"))

    def cross_site(self, headers: Headers) -> Denied:
        """Return the refusal of what a page of another site may not do."""
        return self._cross_site(dict(headers).get(b"origin"))

    def _is_foreign(self, head: _Head) -> bool:
        """Return True if a page asks that is neither ours nor of this machine nor allowed."""
        if head.origin is None:
            return head.site == b"cross-site" or (
                head.site == b"same-site" and not _is_loopback_field(head.host)
            )
        return not self._origins.allows(head.origin, head.host or b"")

    def _wrong_host(self, scope: Scope, host: bytes | None) -> Denied | None:
        if host is None or not self._is_checked(scope) or self._hosts.allows(host):
            return None
        text = shown(host)
        name = host_name(host.decode("latin-1"))
        message = f"Host {text} is no name of this machine"
        if name is not None:
            value = shown(name.encode())
            message += f"; if it is one, add it to the configuration: allowedHosts: [{value}]"
        message += f" ({_SECURITY}, Host)"
        self._log.take("host_not_allowed", message)
        return Denied(421, message, "host_not_allowed")

    def _cross_site(self, origin: bytes | None) -> Denied:
        if origin is None:
            message = (
                "the browser says (Sec-Fetch-Site) that a page of another site or subdomain asked, "
                "and names no origin: open the address by itself, or ask by a script of an origin "
                f"in allowedOrigins ({_SECURITY}, Origins)"
            )
        else:
            text = shown(origin)
            other = "" if self.ring.is_empty else "send an API key as Authorization: Bearer, or "
            message = (
                f"a page of Origin {text} may not do that; if it is yours, {other}add it to the "
                f"configuration: allowedOrigins: [{text}] ({_SECURITY}, Origins)"
            )
        self._log.take("origin_not_allowed", message)
        return Denied(403, message, "origin_not_allowed")

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


def _is_loopback_field(host: bytes | None) -> bool:
    """Return True if *host*, a Host field, means this machine: so does any other port of it."""
    name = None if host is None else host_name(host.decode("latin-1"))
    return name is not None and is_loopback_host(name)


def _beyond(access: Access, route: Route | None) -> Denied | None:
    """Return why *access* is not enough for *route*, or None."""
    if route is None:
        return None
    if route.access in ("infer", "admin") and route.access not in access.scopes:
        return Denied(403, f"forbidden: this API key has no {route.access} scope")
    return _SOME_MODELS if access.models is not None and route.subject == "whole" else None


def json_refusal(headers: Headers) -> Denied | None:
    """Refuse what an HTML form could send to a route that takes JSON; else None."""
    kind = dict(headers).get(b"content-type", b"").lower()
    return _NOT_JSON if kind.startswith(_PLAIN_TYPES) else None
