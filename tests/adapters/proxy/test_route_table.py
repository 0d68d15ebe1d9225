"""The table of routes in docs/security.md agrees with the route tables of the proxy."""

from __future__ import annotations

import pytest
from tools import route_table

from swapchart.adapters.proxy.api.route_table import ROUTES


def test_route_table_in_the_documentation_is_current() -> None:
    """A route that is added or changed without the table fails here."""
    page = route_table.PAGE.read_text()

    assert route_table.updated(page) == page, (
        "docs/security.md is stale: run ./dev python tests/tools/route_table.py"
    )


def test_route_table_has_one_row_for_each_route() -> None:
    """Each route has a row of its own, and the websockets have two."""
    rows = list(route_table.rows())

    assert len(rows) == len(set(rows)) == len(ROUTES.routes) + 2
    assert ("`/unload`", "GET", "`admin`", "no", "checked", "no", "unloads all models") in rows


def test_updated_page_without_markers_is_refused() -> None:
    """A page that lost its markers is an error and not left as it is."""
    with pytest.raises(ValueError, match="routes: begin"):
        route_table.updated("# Security\n")
