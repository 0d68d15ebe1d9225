"""Foreign text never becomes part of a page: names, paths, logs, errors, responses.

The pages of the web UI are held to the same by their policy: no script but our own files.
"""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

import pytest
from tools.asgi import proxied
from tools.rows import row

from swapchart.adapters.proxy.models.definitions import ModelDefinition
from swapchart.adapters.proxy.options import ProxyOptions

pytestmark = pytest.mark.anyio

PAYLOADS = [
    "<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "<svg/onload=alert(1)>",
    "\"><script>alert(1)</script>", "'><iframe srcdoc='<script>alert(1)</script>'>",
    "</title><script>alert(1)</script>", "<!--><script>alert(1)</script>", "&lt;script&gt;",
    "<a href='javascript:alert(1)'>x</a>", "<math><mi xlink:href=javascript:alert(1)>",
    "\x1b]8;;javascript:alert(1)\x07x\x1b]8;;\x07", "<style>@import 'http://192.0.2.1/'</style>",
]  # fmt: skip
PLACES = [
    "/{}", "/upstream/{}/x", "/ui/{}", "/ui/{}.html", "/api/models/{}/history", "/logs/stream/{}",
    "/api/models/{}/chart", "/api/captures/{}", "/api/metrics/activity?sort={}", "/comfyui/{}",
    "/props?model={}", "/api/models/unload/{}", "/api/inflight/{}/cancel",
]  # fmt: skip
ACCEPTS = ["text/html", "application/json", "text/plain", "*/*"]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("accept", ACCEPTS)
@row("C37")
async def test_errors_escape_foreign_text(place: str, accept: str, tmp_path: Path) -> None:
    """However an error is asked for, what was asked for is escaped, and nothing may be run."""
    (tmp_path / "index.html").write_text("<!doctype html><title>ours</title>")
    async with proxied("a", options=ProxyOptions(ui_root=tmp_path)) as bench:
        for payload in PAYLOADS:
            target = place.format(quote(payload, safe=""))
            method = "POST" if "unload" in place or "cancel" in place else "GET"
            answer = await bench.client.call(method, target, headers={"accept": accept})
            text = answer.body.decode()
            kind = answer.header("content-type") or ""
            assert answer.header("x-content-type-options") == "nosniff"
            if kind.startswith("text/html"):
                assert payload not in text or "<" not in payload
                policy = answer.header("content-security-policy") or ""
                assert "default-src 'none'" in policy or "default-src 'self'" in policy
                assert "unsafe-inline" not in policy.partition("style-src")[0]
            else:
                assert kind.partition(";")[0] in ("application/json", "text/plain"), kind
        assert bench.server.received == []


@pytest.mark.parametrize("payload", PAYLOADS)
@row("C37")
async def test_names_and_logs_are_sent_as_data(payload: str) -> None:
    """A model's name, description and output are JSON or plain text, never HTML."""
    card = ModelDefinition(id="a", name=payload, description=payload, metadata={"x": payload})
    async with proxied(card) as bench:
        bench.supervisor["a"].log.line(payload)
        for place in ("/v1/models", "/running", "/logs", "/api/queue", "/api/models/a/explain"):
            for accept in ("text/html", "*/*"):
                answer = await bench.client.call("GET", place, headers={"accept": accept})
                kind = (answer.header("content-type") or "").partition(";")[0]
                assert kind in ("application/json", "text/plain")
                assert answer.header("x-content-type-options") == "nosniff"


@row("C37")
async def test_ui_pages_run_own_files_only(tmp_path: Path) -> None:
    """No script of others, no inline script, no frame around us, no form to elsewhere."""
    (tmp_path / "index.html").write_text("<!doctype html><title>ours</title>")
    async with proxied("a", options=ProxyOptions(ui_root=tmp_path)) as bench:
        answer = await bench.client.call("GET", "/ui/")
        policy = answer.header("content-security-policy") or ""
        rules = dict(rule.strip().partition(" ")[::2] for rule in policy.split(";"))

    assert answer.status == 200
    assert rules["default-src"] == "'self'"
    assert rules.get("script-src", "'self'") == "'self'"
    assert rules["frame-ancestors"] == rules["object-src"] == rules["base-uri"] == "'none'"
    assert rules["form-action"] == "'self'"
    assert [name for name, _ in answer.headers].count("x-content-type-options") == 1
