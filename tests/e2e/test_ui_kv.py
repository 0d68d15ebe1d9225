"""Saved conversations on the page of a model, in the API and in the metrics, in a whole proxy."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tools.browser import expect_text, opened
from tools.net import LONG_S, wait_until
from tools.swapchart_process import CHAT, Serve, SwapchartProcess, demo_model

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = pytest.mark.slow

STORY = " the tree and the river wait for a red stone in the green time of the one queue" * 8
HOSTILE = "<img src=x onerror=\"document.body.dataset.pwned='yes'\">"
WORDS = ("blue", HOSTILE, "stone")
ADMIN, LIMITED = "sk-admin", "sk-limited"


def kept_model(folder: Path, **settings: Any) -> dict[str, Any]:
    """Return a model with a library, on a demo server with two slots that reads slowly.

    A save takes less than to read a prompt again, however busy the machine is, so it pays.
    """
    folder.mkdir(exist_ok=True)
    weights = folder.with_suffix(".bin")
    weights.write_bytes(b"weights")
    words = [
        sys.executable, "-m", "swapchart.adapters.demo", "--model", str(weights), "--alias",
        "demo", "--port", "${PORT}", "--parallel", "2", "--prefill-tokens-per-second", "300",
        "--tokens-per-second", "0", "--slot-save-path", str(folder),
    ]  # fmt: skip
    kv = {"library": 10**9, "minTokens": 64, **settings}
    return {"cmd": words, "proxy": "http://127.0.0.1:${PORT}", "kv": kv}


def ask(proxy: SwapchartProcess, word: str, key: str = "") -> None:
    messages = [{"role": "user", "content": word + STORY}]
    value = {"model": "a", "messages": messages, "max_tokens": 2, "temperature": 0}
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    assert proxy.call("POST", CHAT, value=value, headers=headers).status == 200


def told(proxy: SwapchartProcess) -> dict[str, Any]:
    """Begin three conversations; return what is kept once all are."""
    for word in WORDS:
        ask(proxy, word)
    return wait_until(
        lambda: found if (found := proxy.get("/api/models/a/kv"))["total"] >= len(WORDS) else {},
        LONG_S, what="three conversations",
    )  # fmt: skip


def test_saved_conversations_are_listed_by_http(serve: Serve, tmp_path: Path) -> None:
    """The latest first, words only on demand, in the metrics too; all are deleted at once."""
    folder = tmp_path / "slots"
    proxy = serve({"a": kept_model(folder), "b": demo_model("b")})
    assert proxy.get("/api/models/b/kv")["mode"] == "off"
    found = told(proxy)
    assert (found["mode"], found["directory"]) == ("keep", str(folder))
    assert found["limits"]["library_bytes"] == 10**9
    assert found["bytes"] == sum(one["bytes"] for one in found["conversations"])
    assert not any("words" in one for one in found["conversations"])
    assert proxy.call("GET", "/api/models/a/kv?limit=0").status == 400
    assert proxy.call("GET", "/api/models/a/kv?words=yes").status == 400
    listed = proxy.get("/api/models/a/kv?words=true&limit=2")
    assert (listed["total"], len(listed["conversations"])) == (3, 2)
    assert [one["words"].split()[0] for one in listed["conversations"]] == ["stone", "<img"]

    proxy.unload("a")
    ask(proxy, WORDS[0])
    first = wait_until(
        lambda: one if (one := proxy.get("/api/models/a/kv")["conversations"][0])["restores"]
        else {},
        LONG_S, what="a restore",
    )  # fmt: skip
    assert first["used_at"] >= first["saved_at"]
    assert first["saved_s"] > 0
    text = proxy.call("GET", "/metrics").body.decode()
    assert 'swapchart_kv_conversations{model="a"} 3' in text
    assert 'swapchart_kv_restores_total{model="a"} 1' in text

    answer = proxy.call("DELETE", "/api/models/a/kv")
    assert (answer.status, answer.json()) == (200, {"removed": 3})
    assert proxy.get("/api/models/a/kv")["total"] == 0
    assert not list(folder.glob("*.kv"))
    assert proxy.call("DELETE", "/api/models/b/kv").status == 409


def test_saved_conversations_need_an_admin_key_of_that_model(serve: Serve, tmp_path: Path) -> None:
    keys = [
        {"key": ADMIN, "scopes": ["admin", "infer"]},
        {"key": LIMITED, "scopes": ["admin"], "models": ["b"]},
        {"key": "sk-infer", "scopes": ["infer"]},
    ]
    models = {"a": kept_model(tmp_path / "slots"), "b": demo_model("b")}
    proxy = serve(models, config={"apiKeys": keys})

    def status(method: str, key: str, path: str) -> int:
        return proxy.call(method, path, headers={"Authorization": f"Bearer {key}"}).status

    assert status("GET", ADMIN, "/api/models/a/kv?words=true") == 200
    for method in ("GET", "DELETE"):
        assert status(method, LIMITED, "/api/models/a/kv") == 403
        assert status(method, "sk-infer", "/api/models/a/kv") == 403
    assert status("GET", LIMITED, "/api/models/b/kv") == 200


def test_ui_shows_saved_conversations_and_deletes_them(
    browser: Browser, serve: Serve, tmp_path: Path
) -> None:
    """Live, with the first words on demand only; a deletion is confirmed; all by keyboard."""
    proxy = serve({"a": kept_model(tmp_path / "slots"), "b": demo_model("b")})
    with opened(browser, proxy, "/ui/models?model=a") as page:
        expect_text(page, "#kv-facts", "Kept0 conversations, 0 tokens, 0 MiB of at most")
        told(proxy)
        rows = page.locator("#conversations tbody tr")
        expect_text(
            page,
            "#kv-facts",
            "Kept3 conversations, .*at each stop, in idle moments.*Directory.*slots",
        )
        assert rows.count() == 3
        assert "img" not in page.locator("#kv").inner_text()
        page.locator("#kv-words").press("Enter")
        expect_text(page, rows.nth(1).locator("td").last, "^<img src=x")
        page.locator("#kv-words").press("Space")
        page.locator("#conversations th", has_text="First words").wait_for(state="hidden")
        page.locator("#kv-purge").press("Enter")
        expect_text(page, "#kv [role=alert]", r"^Delete 3 for good\?$")
        page.get_by_role("button", name="Cancel").press("Enter")
        assert rows.count() == 3
        page.locator("#kv-purge").click()
        page.locator("#kv-purge-now").press("Enter")
        expect_text(page, "#kv-facts", "Kept0 conversations, 0 tokens")
        page.goto("/ui/models?model=b")
        expect_text(page, "#kv", "kv is off")
