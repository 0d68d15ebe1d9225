"""Requests, playground, connect, system and configuration of the web UI, in a real Chromium."""

from __future__ import annotations

import base64
import csv
import json
import os
import shutil
import subprocess
import sys
import wave
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tools.browser import expect_text, opened, wait_for
from tools.swapchart_process import CHAT, Edited, Serve, SwapchartProcess, demo_model

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.slow

KEY = "sk-admin"


@pytest.fixture(scope="module")
def proxy(serve_module: Serve) -> SwapchartProcess:
    return serve_module(
        {
            "a": demo_model("a"),
            "it's": demo_model("b"),
            "slow": demo_model("c", rate=2),
            "bad": demo_model("d", "--fail-load"),
        },
        config={"captureBuffer": 5},
    )


def finished(page: Page, model: str) -> str:
    """Return the selector of the newest finished request of *model* once it is listed."""
    row = "tr.done"
    expect_text(page, f"{row} >> nth=0 >> td >> nth=1", f"^{model}$")
    return row


def test_ui_requests_show_where_the_time_went(browser: Browser, proxy: SwapchartProcess) -> None:
    """A request that waited for its model has a bar of phases, and the same in words."""
    proxy.unload()
    assert proxy.chat("a").status == 200
    with opened(browser, proxy, "/ui/requests") as page:
        row = page.locator(finished(page, "a")).first
        label = row.get_by_role("img").get_attribute("aria-label") or ""
        assert "until" in label
        row.get_by_role("button", name="Time of request").click()
        expect_text(page, "tr.details .phases", "until the model")
        expect_text(page, "tr.details", "X-Request-ID")


def test_ui_request_keeps_one_row_from_the_queue_to_its_end(
    browser: Browser, proxy: SwapchartProcess
) -> None:
    """Its bar grows through its phases, and what was opened stays open."""
    with opened(browser, proxy, "/ui/requests") as page:
        expect_text(page, "#connection", "^live$")
        with proxy.open_stream("slow") as stream, proxy.open_chat("a") as waiting:
            row = page.locator("tr.queued", has_text="slow has 1 request")
            row.wait_for()
            assert row.count() == 1
            row.evaluate("(item) => item.dataset.seen = 'yes'")
            row.get_by_role("button", name="Time of request under way").click()
            seen = page.locator("tr[data-seen]")
            bar = seen.get_by_role("img")
            expect_text(page, "tr.details .phases", r"^\s*[\d.]+ m?s in the queue$")
            first = float(bar.locator(".phase").first.evaluate("(item) => item.style.width")[:-1])
            assert first > 0
            stream.close()
            assert waiting.read_answer().status == 200
        expect_text(page, seen.locator(".why"), "^200")
        assert "in the queue" in (bar.get_attribute("aria-label") or "")
        assert "the model had started" in (bar.get_attribute("aria-label") or "")
        expect_text(page, "tr.details", "in the queue.*Evicted for it: slow")
        assert seen.get_attribute("class") == "done"
        wait_for(page, lambda: page.locator("tr.live").count() == 0, "the end of both")


def test_ui_requests_are_found_by_status_and_text(
    browser: Browser, proxy: SwapchartProcess
) -> None:
    """Both the finished ones and those under way; the filters are part of the address."""
    headers = {"X-Request-ID": "find-me", "X-Session-ID": "session-7"}
    chat = {"model": "a", "messages": [{"role": "user", "content": "x"}], "max_tokens": 1}
    assert proxy.call("POST", CHAT, value=chat, headers=headers).status == 200
    assert proxy.chat("nothing").status == 404
    with opened(browser, proxy, "/ui/requests?text=FIND-ME") as page:
        expect_text(page, "tr.done .why", "^200")
        assert page.locator("tr.done").count() == 1
        page.locator("tr.done").get_by_role("button", name="Time").click()
        expect_text(page, "tr.details", "X-Request-ID find-me.*session session-7")
        page.locator("#filter-text").fill("session-7")
        page.wait_for_url("**/ui/requests?text=session-7")
        expect_text(page, "tr.done .why", "^200")
        page.locator("#filter-text").fill("")
        page.locator("#filter-status").select_option("failed")
        expect_text(page, "tr.done td:nth-child(2)", "^nothing$")
        assert page.locator("tr.done .good").count() == 0
        page.locator("#filter-status").select_option("running")
        expect_text(page, "#requests-note", "No request matches")
        with proxy.open_stream("slow"):
            expect_text(page, "tr.live td:nth-child(2)", "^slow$")
            page.locator("#filter-text").fill("else")
            expect_text(page, "#requests-note", "No request matches")
            page.locator("#filter-text").fill("completions")
            page.locator("tr.live").wait_for()
        page.locator("#filter-status").select_option("canceled")
        expect_text(page, "tr.done td:nth-child(2)", "^slow$")


def test_ui_requests_are_filtered_and_saved(
    browser: Browser, proxy: SwapchartProcess, tmp_path: Path
) -> None:
    """The filters are part of the address; the files have what they leave."""
    for model in ("a", "it's", "a"):
        assert proxy.chat(model).status == 200
    with opened(browser, proxy, "/ui/requests") as page:
        page.locator("#filter-model").select_option("it's")
        page.wait_for_url("**/ui/requests?of=it%27s")
        finished(page, "it's")
        page.locator("#filter-sort").select_option("duration")
        page.reload()
        finished(page, "it's")
        assert page.locator("#filter-sort").input_value() == "duration"
        with page.expect_download() as download:
            page.locator("#save-csv").click()
        path = tmp_path / "requests.csv"
        download.value.save_as(path)
        rows = list(csv.DictReader(path.read_text().splitlines()))
        assert {row["model"] for row in rows} == {"it's"}
        assert float(rows[0]["duration_ms"]) >= float(rows[-1]["duration_ms"])
        with page.expect_download() as download:
            page.locator("#save-json").click()
        download.value.save_as(path)
        assert len(json.loads(path.read_text())) == len(rows)


def test_ui_request_is_copied_as_a_command_that_repeats_it(
    browser: Browser, proxy: SwapchartProcess
) -> None:
    if shutil.which("curl") is None:
        pytest.skip("there is no curl; on Debian: apt-get install curl")
    assert proxy.chat("it's").status == 200
    rights = ["clipboard-read", "clipboard-write"]
    with opened(browser, proxy, "/ui/requests", permissions=rights) as page:
        row = page.locator(finished(page, "it's")).first
        row.get_by_role("button", name="as curl").click()
        expect_text(page, "#said", "^Copied")
        command = page.evaluate("navigator.clipboard.readText()")
    before = proxy.get("/api/metrics/activity")["total"]
    done = run("sh", "-c", command)
    assert json.loads(done.stdout)["choices"]
    assert proxy.get("/api/metrics/activity")["total"] == before + 1


def run(*command: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, capture_output=True, text=True, check=True, timeout=60,
        env={**os.environ, **variables},
    )  # fmt: skip


@pytest.mark.parametrize("name", ["curl", "openai", "anthropic"])
def test_ui_snippets_run_as_they_are_shown(browser: Browser, serve: Serve, name: str) -> None:
    """Each snippet gets a response of the chosen model with a key from the environment."""
    if name == "curl" and shutil.which("curl") is None:
        pytest.skip("there is no curl; on Debian: apt-get install curl")
    model = """it's "x" \\ $HOME"""
    proxy = serve({model: demo_model("a"), "b": demo_model("b")}, config={"apiKeys": [KEY]})
    with opened(browser, proxy, "/ui/connect", http_credentials=credentials()) as page:
        page.locator("#connect-model").select_option(model)
        text = page.locator(f"#snippet-{name}").inner_text()
    shell = ("sh", "-c") if name == "curl" else (sys.executable, "-c")

    assert run(*shell, text, SWAPCHART_API_KEY=KEY).stdout.strip()
    key = {"Authorization": f"Bearer {KEY}"}
    rows = proxy.call("GET", "/api/metrics/activity", headers=key).json()["data"]
    assert [row["model"] for row in rows] == [model]


def credentials() -> Any:
    return {"username": "me", "password": KEY}


def test_ui_playground_streams_a_chat(browser: Browser, proxy: SwapchartProcess) -> None:
    """The response grows while it is streamed, with its times at the end; Stop ends one."""
    with opened(browser, proxy, "/ui/models") as page:
        page.get_by_role("link", name="Chat with a", exact=True).click()
        page.locator("#prompt").fill("Hello")
        page.keyboard.press("Enter")
        expect_text(page, ".turn.user .text", "^Hello$")
        expect_text(page, ".turn.assistant .timing", r"first token after .* tokens/s · .* in all")
        page.locator("#playground-model").select_option("slow")
        page.get_by_text("Settings").click()
        page.locator("#max-tokens").fill("100000")
        page.locator("#prompt").fill("On and on")
        page.keyboard.press("Enter")
        expect_text(page, ".turn.assistant >> nth=1 >> .text", r"\w")
        page.locator("#stop").click()
        expect_text(page, ".turn.assistant >> nth=1 >> .bad", "^stopped$")
        page.locator("#clear").click()
        assert page.locator(".turn").count() == 0


def test_ui_playground_sends_a_message_again_that_failed(
    browser: Browser, proxy: SwapchartProcess
) -> None:
    """It is in the form again, and no part of the conversation with the model that responds."""
    refused = "the server responded with a status of 502"
    with opened(browser, proxy, "/ui/playground?model=bad", may_say=refused) as page:
        page.locator("#prompt").fill("Hello")
        page.keyboard.press("Enter")
        expect_text(page, ".turn.assistant .bad", "exit code 1")
        assert page.locator("#prompt").input_value() == "Hello"
        assert page.locator("#said").inner_text() == ""
        page.locator("#playground-model").select_option("a")
        page.get_by_role("button", name="Send").click()
        expect_text(page, ".turn.assistant >> nth=1 >> .timing", "in all$")
    row = proxy.get("/api/metrics/activity?model=a&limit=1")["data"][0]
    body = json.loads(base64.b64decode(proxy.get(f"/api/captures/{row['id']}")["req_body"]))
    assert body["messages"] == [{"role": "user", "content": "Hello"}]


def test_ui_playground_tries_other_tasks(
    browser: Browser, proxy: SwapchartProcess, tmp_path: Path
) -> None:
    """Embeddings, reranking, images, speech and transcription, each with one model."""
    with opened(browser, proxy, "/ui/playground?model=a") as page:
        tasks = page.get_by_role("navigation", name="Tasks")
        tasks.get_by_role("link", name="Embeddings").click()
        page.get_by_role("button", name="Embed").click()
        expect_text(page, "#similarity tr:first-child td:nth-child(2)", r"^1\.000$")
        tasks.get_by_role("link", name="Rerank").click()
        page.get_by_role("button", name="Rerank").click()
        expect_text(page, "#ranking li:first-child", r"^\d\.\d+ \w")
        tasks.get_by_role("link", name="Images").click()
        page.get_by_role("button", name="Generate").click()
        page.locator("#images img").wait_for()
        page.wait_for_function("document.querySelector('#images img').naturalWidth > 0")
        tasks.get_by_role("link", name="Speech").click()
        page.get_by_role("button", name="Speak").click()
        page.locator("#speech").wait_for()
        page.wait_for_function("document.querySelector('#speech').duration > 0")
        tasks.get_by_role("link", name="Transcription").click()
        sound = tmp_path / "sound.wav"
        with wave.open(str(sound), "wb") as file:
            file.setparams((1, 2, 8000, 0, "NONE", "not compressed"))
            file.writeframes(b"\0" * 8000)
        page.locator("#audio-file").set_input_files(sound)
        page.get_by_role("button", name="Transcribe").click()
        expect_text(page, "#transcript", r"\w")
        assert page.url.endswith("/ui/playground?task=transcription&model=a")


def test_ui_system_shows_devices_and_load(browser: Browser, proxy: SwapchartProcess) -> None:
    """The library of charts is loaded for the chart, and by no other page."""
    with opened(browser, proxy, "/ui/models") as page:
        loaded: list[str] = []
        page.on("request", lambda request: loaded.append(request.url.rpartition("/")[2]))
        expect_text(page, "#connection", "^live$")
        page.get_by_role("link", name="System").click()
        expect_text(page, "#devices", "Processor.*Memory.*System")
        page.locator(".plot canvas").wait_for()
        assert loaded.index("uplot.js") > loaded.index("system.js")
        expect_text(page, "#page-system", "Now: processor .* %, memory .* %")


def test_ui_configuration_plans_and_reloads(browser: Browser, serve: Serve) -> None:
    """A plan, a reload with an error at its line, and one that is applied."""
    edited = Edited(serve, {"a": demo_model("a")})
    edited.proxy.may_log = "the old one stays|globalTTL"
    refused = "the server responded with a status of 400"
    with opened(browser, edited.proxy, "/ui/configuration", may_say=refused) as page:
        expect_text(page, "#files li", r"\.(yaml|json)$")
        models = {"a": demo_model("a", name="Named"), "b": demo_model("b")}
        edited.path.write_text(json.dumps({**edited.value, "models": models}))
        page.locator("#plan").click()
        expect_text(page, "#plan-models tbody", "a.*name.*b")
        edited.path.write_text(json.dumps({**edited.value, "globalTTL": "soon"}))
        page.locator("#reload").click()
        expect_text(page, "#outcome-problems code", r":\d+$")
        expect_text(page, "#last-reload", "not applied")
        edited.path.write_text(json.dumps({**edited.value, "models": models}))
        page.locator("#reload").click()
        expect_text(page, "#last-reload", ": applied")
        page.get_by_role("link", name="Models").click()
        page.locator('.model[data-key="b"]').wait_for()


def test_ui_model_shows_its_settings_with_file_and_line(browser: Browser, serve: Serve) -> None:
    """Macros are expanded; variables of the environment and API keys are not shown."""
    key = "sk-secret-key"
    model = demo_model("a", name=f"key {key}", description="from ${place} and ${env.HOME}")
    proxy = serve({"a": model}, config={"apiKeys": [key], "macros": {"place": "the attic"}})
    login = {"username": "me", "password": key}
    with opened(browser, proxy, "/ui/models?model=a", http_credentials=login) as page:
        page.locator("#settings summary").click()
        row = page.locator("#settings tr", has_text="description")
        expect_text(page, row, r"from the attic and \$\{env\.HOME\}config\.yaml:1$")
        assert key not in page.locator("#settings").inner_text()


def test_ui_model_groups_its_history_by_start_and_shows_the_log_of_one(
    browser: Browser, serve: Serve
) -> None:
    """The newest start is unfolded and its log shown; others by keyboard; each has its end."""
    said = {"run": 'echo "hook of $SWAPCHART_INCARNATION"', "shell": True}
    proxy = serve({"a": demo_model("a", beforeStart=said)})
    for _ in range(2):
        assert proxy.chat("a").status == 200
        assert proxy.unload("a").status == 200
    with opened(browser, proxy, "/ui/models?model=a") as page:
        page.locator("#model button.start").click()
        starts = page.locator("#history details")
        expect_text(page, starts.nth(0).locator("summary"), "ready after .*, is running$")
        expect_text(page, starts.nth(1).locator("summary"), "ran .*, stopped: unloaded by API$")
        assert starts.count() == 3
        expect_text(page, starts.nth(0).locator(".hook-output"), "^hook of 3$")
        expect_text(page, starts.nth(0), "Start 3. Cause: a command")
        expect_text(page, "#model-log", "hook of 3.*model loaded")
        assert "hook of 2" not in page.locator("#model-log").inner_text()
        starts.nth(2).locator("summary").press("Enter")
        expect_text(page, starts.nth(2), "Cause: a request")
        page.get_by_role("button", name="Log of start 1").press("Enter")
        expect_text(page, "#model-log", "^(?!.*hook of [23]).*hook of 1.*model loaded")
        page.locator("#log-of").select_option("all")
        expect_text(page, "#model-log", "hook of 1.*hook of 2.*hook of 3")
        page.get_by_role("button", name="Swap of start 1").click()
        expect_text(page, "#swap-dialog h2", "^Swap: request$")


def test_log_of_a_start_is_sent_alone_and_ends_with_it(serve: Serve) -> None:
    """Unknown starts, and those of an earlier run of the proxy, are not found."""
    said = {"run": 'echo "hook of $SWAPCHART_INCARNATION"', "shell": True}
    proxy = serve({"a": demo_model("a", beforeStart=said), "b": demo_model("b")})
    for _ in range(2):
        assert proxy.chat("a").status == 200
        assert proxy.unload("a").status == 200
    newest, first = proxy.get("/api/models/a/starts")["data"]
    assert [newest["number"], first["number"]] == [2, 1]
    log = proxy.call("GET", f"/logs/stream/a?start={first['id']}").body  # it has an end
    assert b"hook of 1" in log
    assert b"hook of 2" not in log
    assert len(log) == first["log_bytes"] == first["kept_log_bytes"]
    kept = proxy.call("GET", f"/logs/stream/a?start={newest['id']}&no-follow").body
    assert b"hook of 2" in kept
    wrong = ("x", f"{first['id']}9", f"0{first['id']}", f"{first['id'][:-1]}-1")
    assert {proxy.call("GET", f"/logs/stream/a?start={each}").status for each in wrong} == {404}
    assert proxy.call("GET", f"/logs/stream/b?start={first['id']}").status == 404
    assert proxy.call("GET", f"/logs/stream?start={first['id']}").status == 404
    assert [start["id"] for start in proxy.get("/api/models/a/starts?limit=1")["data"]] == [
        newest["id"]
    ]
