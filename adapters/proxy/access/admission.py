"""Admission control: the checks of Host, Origin, key and scope that precede each handler.

The tables of docs/security.md say the same for people.
"""

from __future__ import annotations

from dataclasses import replace

from ....dataclass import dataclass
from ...http1.asgi_types import Headers, Scope
from ..options import EVERYTHING, Access, ProxyOptions
from ..routing import Route
from .api_keys import ApiKeys
from .origins import HostCheck, OriginCheck, asks_for_key, host_name, is_loopback_host
from .refusal_log import quoted
from .rights import missing_scope

_CHECKED_HEADERS = frozenset(
    {
        b"host", b"origin", b"authorization", b"x-api-key", b"via",
        b"sec-fetch-site", b"sec-fetch-mode", b"sec-fetch-user", b"sec-fetch-dest",
    }
)  # fmt: skip
_PLAIN_TYPES = (b"text/plain", b"multipart/form-data")  # not urlencoded: curl -d sends it for JSON
#: Sec-Fetch headers of a click on a link that opens a page in a tab of its own.
_CLICK = (b"navigate", b"?1", b"document")
_SECURITY = "docs/security.md"
#: Access of a route -> scopes, one of which the key needs; as an ordered set, for messages.
_SCOPES = {
    "any": {"infer": None, "admin": None}.keys(),
    "infer": {"infer": None}.keys(),
    "admin": {"admin": None}.keys(),
    "metrics": {"metrics": None, "admin": None}.keys(),
}


@dataclass(frozen=True, slots=True)
class Denied:
    """A request is not admitted.

    Attributes:
        status: HTTP status of the response.
        message: Message for people.
        code: Code for programs; empty means the default of the status.
        headers: Additional headers of the response.
        origin: Origin of the web page, if it may read the response; otherwise None.
    """

    status: int
    message: str
    code: str = ""
    headers: tuple[tuple[bytes, bytes], ...] = ()
    origin: bytes | None = None


@dataclass(frozen=True, slots=True)
class Allowed:
    """A request is admitted.

    Attributes:
        access: Rights of its key.
        origin: Origin of the web page, if it may read the response; otherwise None.
    """

    access: Access = EVERYTHING
    origin: bytes | None = None


_ALLOWED = Allowed()
_UNAUTHORIZED = Denied(
    401,
    "unauthorized: invalid or missing API key",
    headers=(
        (b"www-authenticate", b'Basic realm="swapchart"'),
        # Claude Code repeats a request with a wrong key ten times within three minutes otherwise.
        (b"x-should-retry", b"false"),
    ),
)
_LOOP = Denied(
    508, "this proxy has forwarded the request before: peers point at each other", "peer_loop"
)
_NOT_JSON = Denied(415, "expected a body of type application/json", "unsupported_media_type")
_SOME_MODELS = Denied(
    403,
    "forbidden: the route is about all models, and the API key is for some (`models` in "
    f"`apiKeys`): use a key without `models` ({_SECURITY}, Keys)",
)


class _CheckedHeaders:
    """The headers of one request that admission depends on."""

    __slots__ = ("api_keys", "authorizations", "click", "host", "is_loop", "origin", "site")

    def __init__(self, scope: Scope, via_token: bytes | None) -> None:
        self.host: bytes | None = None
        self.origin: bytes | None = None
        self.site: bytes | None = None
        self.click = [b"", b"", b"document"]  # some browsers do not send the last one
        self.authorizations: list[bytes] = []
        self.api_keys: list[bytes] = []
        self.is_loop = False
        for name, value in scope["headers"]:
            if name not in _CHECKED_HEADERS:
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
            elif via_token is not None and via_token in value:
                self.is_loop = True

    @property
    def is_click(self) -> bool:
        """Return True for a click on a link, with which browsers send no Origin."""
        return self.origin is None and tuple(self.click) == _CLICK

    @property
    def brings_key(self) -> bool:
        """Return True if the client added a possible key, which no browser does by itself."""
        return bool(self.api_keys) or any(
            value[:6].lower() != b"basic " for value in self.authorizations
        )


class AdmissionControl:
    """Admits or denies requests by their headers; shared by HTTP and websockets.

    Attributes:
        keys: The configured API keys.
        via_token: Name of this proxy in Via headers; None means that it adds none.
    """

    def __init__(self, options: ProxyOptions) -> None:
        self.keys = ApiKeys(options.keys)
        self._hosts = HostCheck(options.allowed_hosts)
        self._origins = OriginCheck(options.allowed_origins)
        self._check_host = options.check_host
        self._loopback: dict[str, bool] = {}
        self.via_token = (
            b"swapchart-" + options.instance_id.encode() if options.instance_id else None
        )

    def admit(self, scope: Scope, route: Route | None) -> Allowed | Denied:
        """Return whether a request is admitted.

        The decision is cached for all requests with the same headers to the same route, so it
        must not depend on anything else, such as the method.

        Args:
            scope: ASGI scope of the type ``http`` or ``websocket``.
            route: Route of the request, or None: only admitted clients learn that there is none.
        """
        headers = _CheckedHeaders(scope, self.via_token)
        if headers.is_loop:
            return _LOOP
        if route is None or not route.takes_any_host:
            denied = self._wrong_host(scope, headers.host)
            if denied is not None:
                return denied
        access: Access | None = EVERYTHING
        is_added = False
        if not self.keys.is_empty:
            access, is_added = self.keys.first_valid(headers.authorizations, headers.api_keys)
        origin, is_visit = headers.origin, False
        if not is_added and self._is_foreign(headers):
            if access is None and headers.brings_key:
                return replace(_UNAUTHORIZED, origin=origin)  # so that the page can read why
            if route is not None and route.changes:
                if not (route.is_page and headers.is_click):
                    return self._cross_site(headers.origin)
                is_visit = True
            origin = None
        if self.keys.is_empty or (route is not None and route.access == "open"):
            access = EVERYTHING
        elif access is None:
            return replace(_UNAUTHORIZED, origin=origin)
        else:
            denied = _missing_right(access, route)
            if denied is not None:
                return replace(denied, origin=origin)
        if is_visit:
            return Allowed(replace(access, is_visit=True), origin)
        return _ALLOWED if access is EVERYTHING and origin is None else Allowed(access, origin)

    def origin_of(self, headers: Headers) -> bytes | None:
        """Return the origin of a preflight request if it is allowed, otherwise None.

        A preflight request carries no key. So where keys are configured, any page may announce a
        request with a key; the request itself must then have it.
        """
        fields = dict(headers)
        origin = fields.get(b"origin")
        if origin is None or self._origins.allows(origin, fields.get(b"host", b"")):
            return origin
        return origin if not self.keys.is_empty and asks_for_key(headers) else None

    def host_refusal(self, scope: Scope) -> Denied | None:
        """Return why the Host header of a preflight request is not accepted, or None."""
        return self._wrong_host(scope, dict(scope["headers"]).get(b"host"))

    def cross_site(self, headers: Headers) -> Denied:
        """Return the error for a request that a page of another site may not send."""
        return self._cross_site(dict(headers).get(b"origin"))

    def _is_foreign(self, headers: _CheckedHeaders) -> bool:
        """Return True for a request of a page of another machine that is not allowed."""
        if headers.origin is None:
            return headers.site == b"cross-site" or (
                headers.site == b"same-site" and not _is_loopback_field(headers.host)
            )
        return not self._origins.allows(headers.origin, headers.host or b"")

    def _wrong_host(self, scope: Scope, host: bytes | None) -> Denied | None:
        if host is None or not self._is_checked(scope) or self._hosts.allows(host):
            return None
        text = quoted(host)
        name = host_name(host.decode("latin-1"))
        message = f"Host {text} is no name of this machine"
        if name is not None:
            value = quoted(name.encode())
            message += f"; if it is one, add it to the configuration: allowedHosts: [{value}]"
        message += f" ({_SECURITY}, Host)"
        return Denied(421, message, "host_not_allowed")

    def _cross_site(self, origin: bytes | None) -> Denied:
        if origin is None:
            message = (
                "the browser reports (Sec-Fetch-Site) a page of another site or subdomain, and "
                "names no origin: open the address directly, or let a script of an origin in "
                f"allowedOrigins send the request ({_SECURITY}, Origins)"
            )
        else:
            text = quoted(origin)
            other = "" if self.keys.is_empty else "send an API key as Authorization: Bearer, or "
            message = (
                f"a page of Origin {text} may not do that; if it is yours, {other}add it to the "
                f"configuration: allowedOrigins: [{text}] ({_SECURITY}, Origins)"
            )
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
            known = self._loopback[address] = is_loopback_host(
                address
            )  # one entry for each address of this machine
        return known


def _is_loopback_field(host: bytes | None) -> bool:
    """Return True if *host*, the value of a Host header, is a loopback name with any port."""
    name = None if host is None else host_name(host.decode("latin-1"))
    return name is not None and is_loopback_host(name)


def _missing_right(access: Access, route: Route | None) -> Denied | None:
    """Return the error for a right that *route* needs and *access* lacks, or None."""
    if route is None:
        return None
    needed = _SCOPES[route.access]
    if needed.isdisjoint(access.scopes):
        return Denied(403, missing_scope(needed, access.scopes))
    return _SOME_MODELS if access.models is not None and route.subject == "whole" else None


def json_refusal(headers: Headers) -> Denied | None:
    """Return the error for a body that an HTML form could send instead of JSON, or None."""
    kind = dict(headers).get(b"content-type", b"").lower()
    return _NOT_JSON if kind.startswith(_PLAIN_TYPES) else None
