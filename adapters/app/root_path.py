"""Root path: the prefix that all URLs of the proxy have for its clients.

A reverse proxy may serve everything below a path such as ``/llm``, and may take that prefix off the
requests or leave it on; an application may mount this one, which ASGI tells by ``root_path``. Both
forms of a request lead to the same route, and redirects and the OpenAPI document have the prefix.

Source: ASGI HTTP & WebSocket specification 2.5, ``root_path``. It says that ``path`` includes it,
which some servers and frameworks do not follow.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import quote

from ..http1.asgi_types import Scope

_SEGMENT = re.compile(r"[\w.~-]+", re.ASCII)


def parse_root_path(text: str, routes: Iterable[str] = ()) -> str:
    """Return *text* as a root path: without a slash at its end, and empty for ``/``.

    Args:
        text: Such as ``/llm``.
        routes: Paths of the proxy's own routes, with ``*`` for any text. A request to one of them
            must not look as if it had the prefix.

    Raises:
        ValueError: It has another form, or is the beginning of a route.
    """
    root = text.rstrip("/")
    if not root and text in ("", "/"):
        return ""
    first, *segments = root.split("/")
    if first or not segments or not all(map(_is_segment, segments)):
        raise ValueError(
            f"expected a path such as /llm, of letters, digits, `-`, `_`, `.` and `~`, got {text!r}"
        )
    for route in routes:
        before, star, _ = route.partition("*")
        if f"{route}/".startswith(f"{root}/") or (star and root.startswith(before)):
            raise ValueError(f"{text!r} is taken by the route {route}; choose another path")
    return root


def without_root_path(scope: Scope, root: str) -> Scope:
    """Return *scope* with *root* as its root path, and with paths that do not include it.

    A path that does not begin with *root* is left as it is, since the prefix was taken off before.
    An empty *root* changes nothing.
    """
    if not root:
        return scope
    path, raw_path = scope["path"], scope.get("raw_path")
    found: Scope = {**scope, "root_path": root}
    if path != root and not path.startswith(f"{root}/"):
        return found
    if raw_path is not None:
        prefixes = (given for text in (root, quote(root)) if _has(raw_path, given := text.encode()))
        prefix = next(prefixes, None)
        if prefix is None:
            return found  # percent-encoded differently from both forms of the prefix
        rest = raw_path[len(prefix) :]
        found["raw_path"] = rest if rest[:1] == b"/" else b"/" + rest
    found["path"] = path[len(root) :] or "/"
    return found


def _is_segment(text: str) -> bool:
    return text not in (".", "..") and _SEGMENT.fullmatch(text) is not None


def _has(raw_path: bytes, prefix: bytes) -> bool:
    rest = raw_path[len(prefix) : len(prefix) + 1]
    return raw_path.startswith(prefix) and rest in (b"", b"/", b"?")
