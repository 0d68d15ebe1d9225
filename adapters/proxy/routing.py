"""A table of routes: what is answered where, who may ask, and what a page in a browser may not.

The table is a value. A test walks it with no key, a wrong key and the right one, so that a new
route cannot be left open by oversight.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Literal, TypeAlias

#: open: nobody is asked for a key. any: any key will do. infer, admin: the key needs that scope.
RouteAccess: TypeAlias = Literal["open", "any", "infer", "admin"]

#: What a route is about. whole: the proxy and all its models; a key for some models is refused.
#: models: its handler lets such a key see and touch its own models only. nothing: no model.
RouteSubject: TypeAlias = Literal["whole", "models", "nothing"]

_READING = ("GET", "HEAD")


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One route.

    Attributes:
        method: Such as ``POST``; ``*`` is any. GET routes answer HEAD too.
        path: Exact, or with one ``*``, which stands for one character or more, slashes included.
        handler: Answers; called with the context, the request and ASGI's ``send``.
        kind: ``inference``: a body that names a model is sent to that model.
        access: Who may ask.
        subject: What it is about; see `RouteSubject`.
        changes: What a request may change, directly or through a model, as a noun phrase for the
            table in docs/security.md. Empty means nothing; otherwise no page of another origin
            may send the request.
        is_page: A click on a link of another site may lead here all the same; the handler sees to
            it that nothing but a page is opened (``Access.is_visit``).
        takes_any_host: It says nothing that a page with a rebound name could use.
        cut: What is cut off the path before it goes to a model's server.
    """

    method: str
    path: str
    handler: Callable[..., Awaitable[None]]
    changes: str
    access: RouteAccess = "admin"
    subject: RouteSubject = "whole"
    is_page: bool = False
    takes_any_host: bool = False
    cut: bytes = b""
    kind: Literal["inference", "other"] = "other"


class RouteTable:
    """All routes; exact paths are found first, then the longest pattern.

    Attributes:
        routes: All of them, in the order of declaration.
    """

    def __init__(self, routes: Iterable[Route]) -> None:
        self.routes = tuple(routes)
        self._exact: dict[str, dict[str, Route]] = {}
        self._patterns: list[tuple[str, str, Route]] = []
        for route in self.routes:
            before, star, after = route.path.partition("*")
            if star:
                self._patterns.append((before, after, route))
                continue
            methods = self._exact.setdefault(route.path, {})
            for method in _READING if route.method == "GET" else (route.method,):
                methods[method] = route
        self._patterns.sort(key=lambda item: -len(item[0]) - len(item[1]))

    def find(self, method: str, path: str) -> tuple[Route | None, str]:
        """Return the route for *method* and *path*, and what its ``*`` stands for."""
        methods = self._exact.get(path)
        if methods is not None:
            route = methods.get(method) or methods.get("*")
            if route is not None:
                return route, ""
        for before, after, route in self._patterns:
            if _fits(path, before, after) and _takes(route, method):
                return route, path[len(before) : len(path) - len(after)]
        return None, ""

    def allowed(self, path: str) -> list[str]:
        """Return the methods that *path* has routes for, sorted; empty: there is no such path."""
        found = {*self._exact.get(path, ())}
        found.update(
            route.method for before, after, route in self._patterns if _fits(path, before, after)
        )
        if "GET" in found:
            found.add("HEAD")
        return sorted(found)


def cleaned(path: bytes) -> bytes:
    """Return *path* without empty segments, ``.`` and ``..``; it begins with one slash.

    Percent-encoding is not looked into: what is encoded is part of a name.

    Source: Go, path.Clean and how net/http.ServeMux uses it: a slash at the end stays.
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
