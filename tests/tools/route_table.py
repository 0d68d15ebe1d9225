"""Table of all routes for docs/security.md: which key, Host and Origin each one takes.

``./dev python tests/tools/route_table.py`` writes it into the page, between its two markers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from swapchart.adapters.proxy.api import websockets
from swapchart.adapters.proxy.api.route_table import ROUTES
from swapchart.adapters.proxy.routing import Route

PAGE = Path(__file__).parents[2] / "docs" / "security.md"
BEGIN, END = "<!-- routes: begin -->", "<!-- routes: end -->"
COLUMNS = ("path", "method", "key", "key with `models`", "Host", "other origins", "can change")

_KEYS = {
    "open": "none",
    "any": "any",
    "infer": "`infer`",
    "admin": "`admin`",
    "metrics": "`metrics` or `admin`",
}
#: Routes whose handler asks for more, by method and path.
_PASSED_THROUGH = {
    "any": "`infer` for inference, otherwise `admin`",
    "infer": "`infer`, for changes `admin` too",
}
#: A websocket below /upstream is never inference.
_WEBSOCKETS = {"any": "`admin`", "infer": "`infer`"}
_SUBJECTS = {"whole": "no", "models": "its models", "nothing": "yes"}


def rows() -> Iterator[tuple[str, ...]]:
    """Yield one row for each route, websockets last, in the order of the route tables."""
    for route in ROUTES.routes:
        yield _row(route, "any" if route.method == "*" else route.method)
    for route in websockets.ROUTES.routes:
        yield _row(route, "websocket")


def _row(route: Route, method: str) -> tuple[str, ...]:
    keys = {"any": _PASSED_THROUGH, "websocket": _WEBSOCKETS}.get(method, _KEYS)
    key = keys[route.access]
    subject = "yes" if route.access == "open" else _SUBJECTS[route.subject]
    host = "any" if route.takes_any_host else "checked"
    if not route.changes:
        origins = "cannot read the response"
    else:
        origins = "a click only" if route.is_page else "no"
    return f"`{route.path}`", method, key, subject, host, origins, route.changes or "nothing"


def table() -> str:
    """Return the table in Markdown."""
    lines = [COLUMNS, ("---",) * len(COLUMNS), *rows()]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def updated(page: str) -> str:
    """Return the text of *page* with the present table between its markers.

    Raises:
        ValueError: The page has no markers, or several.
    """
    block = f"{BEGIN}\n{table()}{END}"
    pattern = re.compile(f"{re.escape(BEGIN)}.*?{re.escape(END)}", re.DOTALL)
    text, count = pattern.subn(lambda _: block, page)
    if count != 1:
        raise ValueError(f"expected {BEGIN} and {END} once, got {count} times")
    return text


if __name__ == "__main__":
    PAGE.write_text(updated(PAGE.read_text()))
