"""Start rules: which requests may start a model that is not loaded.

The rules are asked only if the model is not ready, so a request to a ready one does not pay for
them.

Source: llama-server's router (``autoload``), the Fetch Standard (``Sec-Purpose``), and W3C's Fetch
Metadata Request Headers (``Sec-Fetch-Mode``). Unlike llama-server's, a value of ``autoload`` that
is no boolean is an error, since it would decide whether a model starts.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

from ..body.errors import BadBodyError
from ..request import Request

#: all: every GET starts its model. pages: if a browser opens a page, or the path is ``/``.
StartOnGet: TypeAlias = Literal["all", "pages", "none"]

#: Code of the error that a request gets whose model is not loaded and may not be started.
NOT_LOADED = "model_not_loaded"
#: Part of every target that may have the parameter, for a quick check.
AUTOLOAD = b"autoload="
_VALUES = {b"true": True, b"1": True, b"false": False, b"0": False}
_SHOWN_CHARS = 40


def split_autoload(target: bytes) -> tuple[bytes, bool | None]:
    """Return *target* without the query parameter ``autoload``, and its value.

    Args:
        target: Path and query; all other bytes stay as they are.

    Returns:
        The target, and None if it has no such parameter.

    Raises:
        BadBodyError: The value is neither true nor false, or there are several that differ.
    """
    path, mark, query = target.partition(b"?")
    parts = query.split(b"&")
    values = [part[len(AUTOLOAD) :] for part in parts if part.startswith(AUTOLOAD)]
    if not values:
        return target, None
    found = {_VALUES.get(value.lower()) for value in values}
    if len(found) > 1:
        raise BadBodyError("`autoload` is given twice, with different values")
    (value,) = found
    if value is None:
        shown = values[0][:_SHOWN_CHARS].decode("latin-1")
        raise BadBodyError(f"`autoload`: expected true or false, got {shown!r}")
    kept = b"&".join(part for part in parts if not part.startswith(AUTOLOAD))
    return path + mark + kept if kept else path, value


def why_not_start(request: Request, autoload: bool | None, path: str, rule: StartOnGet) -> str:
    """Return why *request* may not start its model, in words; empty if it may.

    Args:
        request: The request.
        autoload: Value of its parameter ``autoload``, or None.
        path: Its path at the model's server.
        rule: Which GET requests start a model if the client does not say.
    """
    if _is_prefetch(request):
        return "a prefetch (`Sec-Purpose`) starts no model"
    if autoload is not None:
        return "" if autoload else "`?autoload=false` starts no model"
    if rule == "all" or request.method not in ("GET", "HEAD"):
        return ""
    if rule == "pages" and (path == "/" or is_navigation(request)):
        return ""
    return (
        f"`upstream.startOnGet` is `{rule}`; add `?autoload=true`, or send a request for inference "
        "or POST /api/models/load/MODEL"
    )


def _is_prefetch(request: Request) -> bool:
    purposes = [value for name, value in request.headers if name == b"sec-purpose"]
    tokens = (token.strip().lower() for value in purposes for token in value.split(b";"))
    return b"prefetch" in tokens


def is_navigation(request: Request) -> bool:
    """Return True if a browser opens a page with *request*."""
    if request.header(b"sec-fetch-mode") == b"navigate":
        return True
    return b"text/html" in (request.header(b"accept") or b"").lower()
