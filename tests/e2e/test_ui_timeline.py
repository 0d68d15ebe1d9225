"""The timeline of the web UI: residence, waits and swaps, by mouse and by keyboard."""

from __future__ import annotations

import re
import sqlite3
import time
from typing import TYPE_CHECKING, Any

import pytest
from tools.browser import expect_text, opened, wait_for
from tools.net import LONG_S, wait_until
from tools.swapchart_process import Serve, SwapchartProcess, demo_model

from swapchart.adapters.store.activity_schema import TABLE

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.slow

HOSTILE = "<img src=x onerror=\"document.body.dataset.pwned='yes'\">"


@pytest.fixture(scope="module")
def proxy(serve_module: Serve) -> SwapchartProcess:
    """A proxy that has swapped from a to a model with a hostile name, whose hook says something."""
    saving = {"run": ["sh", "-c", f"sleep 0.3; echo '{HOSTILE.replace(chr(39), '')} saved'"]}
    models: dict[str, Any] = {
        "a": demo_model("a", beforeStop=[saving]),
        HOSTILE: demo_model("b", beforeStart=[{"run": ["sleep", "0.5"]}]),
        "c": demo_model("c"),
        **{f"idle-{number}": demo_model("x") for number in range(3)},
    }
    found = serve_module(models)
    for model in ("a", HOSTILE):
        assert found.chat(model).status == 200
        time.sleep(2)  # of residence: shorter states are no part of the lanes of ten minutes
    wait_until(lambda: found.get("/api/metrics/activity")["total"] == 2, LONG_S, what="records")
    return found


def lane(page: Page, model: str) -> Any:
    """Return the lane of *model*."""
    name = page.locator("a.lane-name", has_text=re.compile(f"^{re.escape(model)}$"))
    return page.locator(".lane").filter(has=name)


def span(page: Page) -> str:
    """Return what the timeline says about its span."""
    return page.locator("#timeline").get_attribute("aria-label") or ""


def minute(page: Page) -> None:
    """Show the last minute, in which starts of a second are seen."""
    page.get_by_role("button", name="1 min", exact=True).click()


def test_ui_timeline_shows_residence_waits_and_swaps(
    browser: Browser, proxy: SwapchartProcess
) -> None:
    """The first page says which model was resident when, what a request waited for, and why."""
    with opened(browser, proxy) as page:
        page.get_by_role("button", name="10 min", exact=True).click()
        for model in ("a", HOSTILE):
            lane(page, model).locator(".state-resident").first.wait_for(state="attached")
        assert lane(page, "c").count() == 0
        expect_text(page, "#unused", "4 other models were not loaded")
        expect_text(page, "#timeline-sum", "2 swaps · 2 requests waited")
        row = page.locator("#waits tbody tr", has_text="onerror").first
        assert re.search("evictions .*, start .*, hooks", row.inner_text())
        row.get_by_role("button", name="Why request").click()
        expect_text(page, "#waits .reasons", "a ran when it came; evicted: a; .*evicting a")
        swaps = page.locator("#timeline-swaps tbody tr")
        assert HOSTILE in swaps.first.inner_text()
        assert "request" in swaps.first.inner_text()


def test_ui_timeline_shows_requests_before_they_end(browser: Browser, serve: Serve) -> None:
    """Those in the queue and in flight grow, with what they wait for; canceled ones stay."""
    models = {"a": demo_model("a", rate=20), "b": demo_model("b"), "c": demo_model("c")}
    proxy = serve(models, config={"captureBuffer": 5})
    with opened(browser, proxy) as page:
        expect_text(page, "#connection", "^live$")
        minute(page)
        with proxy.open_stream("a") as stream:
            expect_text(page, "#waits tr.live", "now.*a.*responding 200")
            lane(page, "a").locator(".state-answering").first.wait_for(state="attached")
            with proxy.open_chat("b") as waiting, proxy.open_chat("c") as leaving:
                row = page.locator("#waits tr.live", has_text="place 1 in the queue")
                expect_text(page, row, "b.*place 1.*a has 1 request.*queue ")
                expect_text(page, "#timeline-sum", "3 under way")
                bar = page.locator(".waiting[data-key] .wait-queue").first
                bar.wait_for(state="attached")
                width = float(bar.get_attribute("width") or 0)

                def has_grown() -> bool:
                    return float(bar.get_attribute("width") or 0) > width

                wait_for(page, has_grown, "a bar that grows")
                page.locator("#waits tr.live", has_text="place 2 in the queue").wait_for()
                leaving.close()
                expect_text(page, "#waits tbody tr:not(.live)", "c.*canceled .499.")
                page.locator(".end-canceled").nth(1).wait_for(state="attached")  # one is the key
                stream.close()
                assert waiting.read_answer().status == 200
        row = page.locator("#waits tbody tr:not(.live)", has_text="evictions")
        expect_text(page, row, "queue .*evictions .*start")
        wait_for(page, lambda: page.locator("#waits tr.live").count() == 0, "the end of all")
        assert proxy.chat("nothing").status == 404
        expect_text(page, "#timeline-sum", "1 rejected · 2 canceled")


def test_ui_timeline_swap_shows_what_it_ran(browser: Browser, proxy: SwapchartProcess) -> None:
    """A click on a swap in a lane shows its transitions, its hooks and their output."""
    with opened(browser, proxy) as page:
        page.get_by_role("button", name="10 min", exact=True).click()
        last = lane(page, HOSTILE).locator(".swap").last
        last.wait_for(state="attached")
        last.click(force=True)
        expect_text(page, "#swap-hooks", r"beforeStop of a: run sh\s+ok after")
        expect_text(page, ".hook-output", "<img src=x onerror=.*saved")
        expect_text(page, "#swap-hooks li:nth-child(2)", "beforeStart of <img")
        expect_text(page, "#swap-requests", "after .*: evicting a")
        assert page.locator("#swap-transitions tbody tr").count() >= 8
        page.keyboard.press("Escape")
        page.locator("#swap-dialog").wait_for(state="detached")


def test_ui_timeline_is_used_by_keyboard_and_wheel(
    browser: Browser, proxy: SwapchartProcess
) -> None:
    """Keys move and zoom between a minute and seven days; End goes back to now."""
    with opened(browser, proxy) as page:
        page.locator("#timeline").focus()
        live = page.locator("#live")
        assert live.get_attribute("aria-pressed") == "true"
        for _ in range(8):
            page.keyboard.press("-")
        assert page.locator("#zoom-out").is_disabled()
        pressed = page.locator(".spans button[aria-pressed=true]")
        assert pressed.inner_text() == "7 days"
        page.keyboard.press("ArrowLeft")
        wait_for(page, lambda: live.get_attribute("aria-pressed") == "false", "an earlier span")
        before = span(page)
        page.mouse.move(600, page.locator(".axis").bounding_box()["y"] + 5)  # type: ignore[index]
        page.mouse.wheel(0, -100)
        wait_for(page, lambda: span(page) != before, "the wheel")
        page.locator("#timeline").focus()
        page.keyboard.press("End")
        wait_for(page, lambda: live.get_attribute("aria-pressed") == "true", "now")
        for _ in range(16):
            page.keyboard.press("+")
        assert page.locator("#zoom-in").is_disabled()
        assert pressed.inner_text() == "1 min"


def test_ui_timeline_is_live(browser: Browser, proxy: SwapchartProcess) -> None:
    """A model that is loaded meanwhile gets its lane without a reload."""
    with opened(browser, proxy) as page:
        minute(page)
        expect_text(page, "#timeline-sum", "requests waited")
        assert lane(page, "c").count() == 0
        assert proxy.chat("c").status == 200
        lane(page, "c").locator(".state-resident").first.wait_for(state="attached")
        swap = page.locator("#timeline-swaps tbody tr", has_text="c").first
        swap.get_by_role("button", name="Show swap").click()
        expect_text(page, "#swap-transitions", "ready")


@pytest.mark.slow
def test_ui_timeline_of_500_models_and_10_000_requests(browser: Browser, serve: Serve) -> None:
    """Lanes come in portions, those that run first; the rest of the page stays usable."""
    models = {f"m{number}": demo_model("x") for number in range(500)}
    proxy = serve(models)
    assert proxy.chat("m77").status == 200
    wait_until(lambda: proxy.get("/api/metrics/activity")["total"] == 1, LONG_S, what="a record")
    now = time.time()
    (journal,) = (proxy.folder / "state").glob("**/journal.db")
    with sqlite3.connect(journal, timeout=20) as db:
        last = "SELECT MAX(instance) FROM transition"
        wait_until(lambda: db.execute(last).fetchone()[0], LONG_S, what="a transition")
        (instance,) = db.execute(last).fetchone()
        db.executemany(
            "INSERT INTO transition (at, instance, service, incarnation, event, cause, source, "
            "target, configuration, seconds, hooks, swap_id, swap_cause) VALUES "
            "(?, ?, ?, 1, 'x', '', '', ?, ?, 0, '[]', ?, 'request')",
            [
                (
                    now - 3000 + number * 5 + at, instance, f"m{number}", state, f"alive.{state}",
                    f"s-{number}",
                )
                for number in range(500) if number != 77
                for at, state in enumerate(("before_start", "ready", "draining", "stopped"))
            ],
        )  # fmt: skip
    db.close()
    (path,) = (proxy.folder / "state").glob("**/activity.db")
    with sqlite3.connect(path, timeout=20) as db:
        columns = [row[1] for row in db.execute(f"PRAGMA table_info({TABLE})")]
        copied = ", ".join(each for each in columns if each not in ("id", "time", "model"))
        db.execute(
            "WITH RECURSIVE n(i) AS (SELECT 20001 UNION ALL SELECT i + 1 FROM n WHERE i < 30000) "
            f"INSERT INTO {TABLE} (id, time, model, {copied}) "
            f"SELECT n.i, {round(now * 1000)} - (30000 - n.i) * 300, 'm' || (n.i % 500), {copied} "
            f"FROM n, {TABLE} WHERE id = (SELECT MIN(id) FROM {TABLE})"
        )
    db.close()
    with opened(browser, proxy) as page:
        page.locator("a.lane-name").nth(29).wait_for()
        assert page.locator("a.lane-name").count() == 30
        assert page.locator("a.lane-name").all_inner_texts()[:3] == ["m77", "m0", "m1"]
        expect_text(page, "#timeline-sum", "10,001 requests")
        page.locator("#timeline .more button").click()
        page.locator("a.lane-name").nth(59).wait_for()
        took = page.evaluate(
            """async () => {
              const began = performance.now();
              document.getElementById("zoom-in").click();
              await new Promise(requestAnimationFrame);
              await new Promise(requestAnimationFrame);
              return performance.now() - began;
            }"""
        )
        assert took < 2000, f"{took:.0f} ms for a zoom"
