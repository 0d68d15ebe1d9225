"""The page about compatibility tells the truth about its tests, and leaves no route out."""

from __future__ import annotations

import re
from pathlib import Path

from swapchart.adapters.proxy.api.route_table import ROUTES

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "compatibility.md").read_text()
MIGRATING = (ROOT / "docs" / "migrating-from-llama-swap.md").read_text()


def rows() -> list[list[str]]:
    """Return the cells of all rows: what, status, note, tests."""
    lines = [line for line in PAGE.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    return [row for row in cells if row[0] not in ("What", "---|---|---|---")]


def test_every_test_that_is_named_exists() -> None:
    """No claim names a test that is not there, nor does the page for who comes from llama-swap."""
    known = {
        name
        for path in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"def (test_\w+)", path.read_text())
    }
    named = set(re.findall(r"`(test_\w+)`", PAGE + MIGRATING))

    assert len(named) > 120
    assert named - known == set()


def test_every_row_says_how_it_is() -> None:
    """Each row has one of three answers; what differs says how, and what works shows a test."""
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


def test_most_of_it_works() -> None:
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


def test_5_5_every_route_of_llama_swap_is_here() -> None:
    """Whatever route llama-swap has, we have."""
    missing = [route for route in THEIRS if ROUTES.find(*route)[0] is None]

    assert missing == []
