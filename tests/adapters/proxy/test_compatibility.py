"""docs/llama-swap.md cites tests for each feature, and every route of llama-swap is served."""

from __future__ import annotations

import re
from pathlib import Path

from swapchart.adapters.proxy.api.route_table import ROUTES

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "llama-swap.md").read_text()
_HEADER = "| Feature | Support | Note | Tests |\n| --- | --- | --- | --- |\n"


def rows() -> list[list[str]]:
    """Return the cells of all rows of the feature tables: feature, support, note, tests."""
    tables = [part.partition("\n\n")[0] for part in PAGE.split(_HEADER)[1:]]
    lines = [line for table in tables for line in table.splitlines()]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def test_compatibility_row_has_status_and_reason() -> None:
    """Each row says yes, differs or no; a difference is described, and a feature cites a test."""
    found = rows()

    assert len(found) > 60
    for row in found:
        what, status, *rest = row
        assert status in ("yes", "differs", "no"), row
        text = " ".join(rest)
        if status != "yes":
            assert len(re.sub(r"`test_\w+`", "", text).strip()) > 10, what
        if status != "no":
            assert "test_" in text, what


def test_compatibility_page_has_few_gaps() -> None:
    """Nearly everything is here, the same or better."""
    statuses = [row[1] for row in rows()]

    assert statuses.count("no") <= 0.05 * len(statuses)


#: Routes that llama-swap has besides those of models.
THEIRS = [
    ("GET", "/v1/models"), ("GET", "/models"), ("GET", "/health"), ("GET", "/wol-health"),
    ("GET", "/"), ("GET", "/ui/"), ("GET", "/ui/assets/x.js"), ("GET", "/ui"),
    ("GET", "/favicon.ico"), ("GET", "/metrics"), ("GET", "/unload"), ("GET", "/running"),
    ("GET", "/upstream"), ("GET", "/upstream/m/x"), ("DELETE", "/upstream/m/x"),
    ("POST", "/comfyui"), ("GET", "/comfyui/x"), ("GET", "/logs"), ("GET", "/logs/stream"),
    ("GET", "/logs/stream/proxy"), ("GET", "/logs/stream/org/m"), ("POST", "/api/models/unload"),
    ("POST", "/api/models/unload/org/m"), ("GET", "/api/profiles"),
    ("PUT", "/api/profiles/active"), ("POST", "/api/inflight/1/cancel"), ("GET", "/api/events"),
    ("GET", "/api/metrics/activity"), ("GET", "/api/metrics/stats"), ("GET", "/api/performance"),
    ("GET", "/api/version"), ("GET", "/api/hardware"), ("GET", "/api/captures/1"),
    ("GET", "/v1/audio/voices"), ("GET", "/sdapi/v1/loras"), ("GET", "/props"),
]  # fmt: skip


def test_route_table_has_each_route_of_llama_swap() -> None:
    """Whatever route llama-swap has, we have."""
    missing = [route for route in THEIRS if ROUTES.find(*route)[0] is None]

    assert missing == []
