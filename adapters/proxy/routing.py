"""Route table: which handler serves a path, which key it takes, what browsers may not do with it.

The table is a value, and so is what the OpenAPI document says of a route. A test sends requests to
each route with no key, a wrong key and the right one, so that a new route cannot be left open by
oversight.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Literal, TypeAlias

from msgspec import Struct

from ...dataclass import dataclass, field

#: open: no key is needed. any: a key that may do more than read metrics. infer, admin: a key with
#: that scope. metrics: a key with that scope or with admin.
RouteAccess: TypeAlias = Literal["open", "any", "infer", "admin", "metrics"]

#: What a route is about. whole: the proxy and all its models; a key for some models is refused.
#: models: the handler restricts such a key to its own models. nothing: no model.
RouteSubject: TypeAlias = Literal["whole", "models", "nothing"]

_READING = ("GET", "HEAD")


@dataclass(frozen=True, slots=True)
class Content:
    """A response that is not one of the declared JSON bodies.

    Attributes:
        status: HTTP status.
        description: What the response is.
        media_type: Media type; empty means any, or no body.
        headers: Names of headers that tell something of their own.
    """

    status: int
    description: str
    media_type: str = ""
    headers: tuple[str, ...] = ()


TEXT = Content(200, "Success.", "text/plain")

#: Type of a JSON body (a ``Body`` of api/schema), or another response.
ResponseType: TypeAlias = type[Struct] | Content


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """Description of a route in the OpenAPI document.

    Attributes:
        summary: What a request does, in one line.
        responses: Responses without an error; at least one.
        errors: HTTP statuses of errors, besides those that every route has.
        parameter: Name of what ``*`` in the path stands for.
        parameter_type: Its type.
        query: Name of a parameter of the query -> its type.
        required: Names of the parameters of the query that must be there.
        body: Type of the request's body; None means that the route needs none.
        body_types: Media types of that body.

    Raises:
        TypeError: No type of a response is declared.
    """

    summary: str
    responses: tuple[ResponseType, ...]
    errors: tuple[int, ...] = ()
    parameter: str = ""
    parameter_type: Any = str
    query: Mapping[str, Any] = field(default_factory=dict)
    required: tuple[str, ...] = ()
    body: type[Struct] | None = None
    body_types: tuple[str, ...] = ("application/json",)

    def __post_init__(self) -> None:
        if not self.responses:
            raise TypeError(f"{self.summary!r} declares no type of its response")
        for kind in self.responses:
            if not isinstance(kind, Content) and not issubclass(kind, Struct):
                raise TypeError(f"{self.summary!r} declares {kind}: expected a struct or a Content")


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One route.

    Attributes:
        method: Such as ``POST``; ``*`` is any. GET routes answer HEAD too.
        path: Exact, or with one ``*``, which stands for one character or more, slashes included.
        handler: Sends the response; called with the context, the request and ASGI's ``send``.
        operation: What the OpenAPI document says about the route.
        changes: What a request may change, directly or through a model, as a noun phrase for the
            table in docs/security.md. Empty means nothing; otherwise no page of another origin
            may send the request.
        access: Which key a request needs; see `RouteAccess`.
        subject: What the route is about; see `RouteSubject`.
        is_page: A click on a link of another site is admitted all the same; the handler ensures
            that it opens a page and nothing else (``Access.is_visit``).
        takes_any_host: The Host header is not checked, since the response holds no information.
        cut: Prefix that is removed from the path before it is sent to a model's server.
        kind: ``inference`` for requests whose body names a model and is sent to that model.
        is_fallback: The route is for paths of its method that no other route has; see
            `RouteTable.other`.
    """

    method: str
    path: str
    handler: Callable[..., Awaitable[None]]
    operation: Operation
    changes: str
    access: RouteAccess = "admin"
    subject: RouteSubject = "whole"
    is_page: bool = False
    takes_any_host: bool = False
    cut: bytes = b""
    kind: Literal["inference", "other"] = "other"
    is_fallback: bool = False


class RouteTable:
    """All routes; an exact path precedes patterns, a longer pattern a shorter one.

    Attributes:
        routes: The routes in the order of declaration.
        fallback: The route for paths that no other route has, or None; `find` never returns it.
    """

    def __init__(self, routes: Iterable[Route]) -> None:
        self.routes = tuple(routes)
        self._exact: dict[str, dict[str, Route]] = {}
        self._patterns: list[tuple[str, str, Route]] = []
        self.fallback = next((route for route in self.routes if route.is_fallback), None)
        for route in self.routes:
            if route.is_fallback:
                continue
            before, star, after = route.path.partition("*")
            if star:
                self._patterns.append((before, after, route))
                continue
            methods = self._exact.setdefault(route.path, {})
            for method in _READING if route.method == "GET" else (route.method,):
                methods[method] = route
        self._patterns.sort(key=lambda item: -len(item[0]) - len(item[1]))

    @property
    def paths(self) -> list[str]:
        """Paths of all routes but the fallback, in the order of declaration."""
        return [route.path for route in self.routes if not route.is_fallback]

    def find(self, method: str, path: str) -> tuple[Route | None, str]:
        """Return the route for *method* and *path*, and what ``*`` stands for, or None and ""."""
        methods = self._exact.get(path)
        if methods is not None:
            route = methods.get(method) or methods.get("*")
            if route is not None:
                return route, ""
        for before, after, route in self._patterns:
            if _fits(path, before, after) and _takes(route, method):
                return route, path[len(before) : len(path) - len(after)]
        return None, ""

    def other(self, method: str, path: str) -> Route | None:
        """Return the fallback route if it takes *method* and no route has *path*, else None."""
        fallback = self.fallback
        if fallback is None or method != fallback.method or self.allowed(path):
            return None
        return fallback

    def allowed(self, path: str) -> list[str]:
        """Return the methods that *path* has routes for, sorted; empty for an unknown path."""
        found = {*self._exact.get(path, ())}
        found.update(
            route.method for before, after, route in self._patterns if _fits(path, before, after)
        )
        if "GET" in found:
            found.add("HEAD")
        return sorted(found)


def cleaned(path: bytes) -> bytes:
    """Return *path* without empty segments, ``.`` and ``..``; it begins with one slash.

    Percent-encoding is not decoded: an encoded slash is part of a name.

    Source: Go, path.Clean as net/http.ServeMux uses it: a slash at the end stays.
    """
    kept: list[bytes] = []
    for segment in path.split(b"/"):
        if segment == b"..":
            del kept[-1:]
        elif segment not in (b"", b"."):
            kept.append(segment)
    end = b"/" if kept and path.endswith(b"/") else b""
    return b"/" + b"/".join(kept) + end


def _fits(path: str, before: str, after: str) -> bool:
    longer = len(path) > len(before) + len(after)
    return longer and path.startswith(before) and path.endswith(after)


def _takes(route: Route, method: str) -> bool:
    return route.method in ("*", method) or (route.method == "GET" and method == "HEAD")
