"""The web UI with hostile names, many models, many requests, long logs, and on small screens."""

from __future__ import annotations

import re
import shlex
import sqlite3
import sys
from typing import TYPE_CHECKING, Any

import pytest
from tools.browser import expect_text, opened, wait_for
from tools.net import LONG_S, wait_until
from tools.node import package_folder
from tools.prefix_relay import serving_below
from tools.swapchart_process import Serve, SwapchartProcess, demo_model
from tools.ui_figures import painted, watch

from swapchart.adapters.store.activity_schema import TABLE

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.slow

HOSTILE = {
    "html": "<img src=x onerror=\"document.body.dataset.pwned='yes'\">",
    "script": "</script><script>document.body.dataset.pwned='yes'</script>",
    "template": "${document.body.dataset.pwned='yes'}{{7*7}}`",
    "right to left": "\u202egnp.ledom\u202c \u0645\u0648\u062f\u064a\u0644",
    "long": "a-model-whose-name-has-no-end-" * 8,
    "object": "__proto__",
}
KEY = "sk-admin"
PAGES = {
    "timeline": "/ui/",
    "models": "/ui/models", "model": "/ui/models?model=constructor", "requests": "/ui/requests",
    "playground": "/ui/playground", "logs": "/ui/logs", "system": "/ui/system",
    "configuration": "/ui/configuration", "connect": "/ui/connect",
}  # fmt: skip
#: Selector of an element that a page shows when it has read what it shows.
SHOWN = {
    "timeline": "#timeline-swaps tbody tr",
    "models": ".model", "model": ".state.active", "requests": "tr.done",
    "playground": "#prompt", "logs": "#upstream-log .lines", "system": "#devices dt",
    "configuration": "#files li", "connect": "#snippet-curl",
}  # fmt: skip


@pytest.fixture(scope="module")
def hostile(serve_module: Serve) -> SwapchartProcess:
    """A proxy with hostile names, each in a request, a log and a failure."""
    models = {
        name: demo_model("a", name=name, description=name, aliases=[f"{kind} {name}"])
        for kind, name in HOSTILE.items()
    }
    models["constructor"] = demo_model("a")
    fails = ["sh", "-c", f"echo {shlex.quote(HOSTILE['html'])}; exit 3", "${PORT}"]
    models["fails"] = {"cmd": fails, "proxy": "http://127.0.0.1:${PORT}"}
    proxy = serve_module(models, config={"captureBuffer": 5})
    for name in models:
        assert proxy.chat(name).status == (200 if name != "fails" else 502), name
    assert proxy.chat("constructor").status == 200
    return proxy


def show(page: Page, name: str) -> None:
    """Open a page and wait until it shows what it has read."""
    page.goto(PAGES[name])
    page.locator(SHOWN[name]).first.wait_for()


@pytest.mark.parametrize("name", PAGES)
def test_ui_page_has_no_serious_findings_of_axe(
    browser: Browser, hostile: SwapchartProcess, name: str
) -> None:
    """In light and in dark; hostile names are shown as they are."""
    axe = package_folder("axe-core") / "node_modules" / "axe-core" / "axe.min.js"
    with opened(browser, hostile) as page:
        show(page, name)
        page.evaluate(axe.read_text())
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme="light" if scheme == "light" else "dark")
            passed, found = page.evaluate(
                "axe.run().then((result) => [result.passes.length, result.violations])"
            )
            assert passed >= 15, "rules that have looked at something"
            serious = [
                (rule["id"], node["html"][:200], node["failureSummary"][:300])
                for rule in found
                for node in rule["nodes"]
                if rule["impact"] in ("serious", "critical")
            ]
            assert serious == [], scheme


#: Elements that stick out to the right, or whose content is cut off; those that scroll are neither.
CUT = """() => {
  const scrolls = (item) => item && (/auto|scroll/.test(getComputedStyle(item).overflowX)
    || scrolls(item.parentElement));
  const name = (item) => item.outerHTML.slice(0, 120);
  const all = [...document.querySelectorAll("body *")].filter((item) => item.offsetWidth);
  return all.filter((item) => !scrolls(item.parentElement)
      && item.getBoundingClientRect().right > innerWidth + 1 && !item.matches(".skip")).map(name)
    .concat(all.filter((item) => item.matches(".card, .model, .title, td, li, p, a, button, span")
      && /hidden|clip/.test(getComputedStyle(item).overflowX) && !item.matches(".unseen, .bar *")
      && item.scrollWidth > item.clientWidth + 1).map(name));
}"""


@pytest.mark.parametrize("name", PAGES)
def test_ui_page_fits_390_pixels_and_is_used_by_keyboard(
    browser: Browser, hostile: SwapchartProcess, name: str
) -> None:
    """Nothing is cut off, and Tab reaches each control, which is outlined then."""
    phone: dict[str, Any] = {"viewport": {"width": 390, "height": 800}}
    with opened(browser, hostile, **phone) as page:
        show(page, name)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        assert page.evaluate(CUT) == []
        controls = page.evaluate(
            """() => {
              const all = "a[href], button, input, select, textarea, summary, [tabindex='0']";
              const isUsed = (item) => item.checkVisibility() && !item.disabled;
              window.wanted = [...document.querySelectorAll(all)].filter(isUsed);
              return window.wanted.length;
            }"""
        )
        missed = controls
        for _ in range(2 * controls + 20):
            page.keyboard.press("Tab")
            missed = page.evaluate(
                """() => {
                  const item = document.activeElement;
                  const style = getComputedStyle(item);
                  if (style.outlineStyle !== "none" || item.matches("iframe, audio")) {
                    const isLeft = (each) => each !== item && each.isConnected;
                    window.wanted = window.wanted.filter(isLeft);
                  }
                  return window.wanted.length;
                }"""
            )
            if not missed:
                break
        assert page.evaluate("window.wanted.map((item) => item.outerHTML.slice(0, 200))") == []


def chatty() -> dict[str, Any]:
    """Return a model that prints 5 MB before it loads."""
    lines = "for n in range(50_000): print(f'{n:08}', 'x' * 90)"
    words = [sys.executable, "-m", "swapchart.adapters.demo", "--model", "m", "--port", "${PORT}"]
    script = f"{shlex.join([sys.executable, '-c', lines])}; exec {' '.join(words)}"
    return {"cmd": ["sh", "-c", script], "proxy": "http://127.0.0.1:${PORT}"}


@pytest.fixture(scope="module")
def many(serve_module: Serve) -> SwapchartProcess:
    """A proxy with 500 models, 10,000 requests, and a model that prints 5 MB."""
    models = {f"model-{number}": demo_model("m") for number in range(499)}
    models["chatty"] = chatty()
    proxy = serve_module(models)
    assert proxy.chat("model-7").status == 200
    wait_until(lambda: proxy.get("/api/metrics/activity")["total"] == 1, LONG_S, what="a record")
    (path,) = (proxy.folder / "state").glob("**/activity.db")
    with sqlite3.connect(path, timeout=20) as db:
        columns = [row[1] for row in db.execute(f"PRAGMA table_info({TABLE})")]
        copied = ", ".join(column for column in columns if column != "id")
        db.execute(
            f"WITH RECURSIVE n(i) AS (SELECT 20001 UNION ALL SELECT i + 1 FROM n WHERE i < 30000) "
            f"INSERT INTO {TABLE} (id, {copied}) "
            f"SELECT n.i, {copied} FROM n, {TABLE} WHERE id = (SELECT MIN(id) FROM {TABLE})"
        )
    db.close()
    return proxy


def test_ui_lists_500_models_soon(browser: Browser, many: SwapchartProcess) -> None:
    """Those that run come first, then the others in their natural order; search is at once."""
    with opened(browser, many, "about:blank") as page:
        watch(page, ".model", 500)
        page.goto("/ui/models")
        took = painted(page)["painted"]
        names = page.locator(".model .name").all_inner_texts()
        assert names[:3] == ["model-7", "chatty", "model-0"]
        assert names.index("model-10") > names.index("model-9")
        page.locator("#model-search").fill("MODEL-49")
        wait_for(page, lambda: page.locator(".model").count() == 10, "the search")
        # Five times the bound of a second. `tests/tools/ui_figures.py many` measured 270 to 420 ms
        # on two cores that were busy with other things.
        assert took < 5000, f"{took:.0f} ms"


def test_ui_pages_are_shown_with_500_models_and_10_000_requests(
    browser: Browser, many: SwapchartProcess
) -> None:
    with opened(browser, many, "about:blank") as page:
        for name, path in PAGES.items():
            page.goto(path.replace("constructor", "model-7"))
            page.locator(SHOWN[name]).first.wait_for()


def test_ui_pages_below_a_path_come_back_with_the_proxy(browser: Browser, serve: Serve) -> None:
    """Each page is shown with keys, waits while there is no proxy, and goes on after that."""
    models = {HOSTILE["html"]: demo_model("a"), "b": demo_model("b")}
    config = {"apiKeys": [KEY]}
    login: dict[str, Any] = {"http_credentials": {"username": "me", "password": KEY}}
    proxy = serve(models, config=config)

    def use(proxy: SwapchartProcess) -> None:
        proxy.headers = {"Authorization": f"Bearer {KEY}"}
        for model in models:
            assert proxy.chat(model).status == 200

    def show_all(page: Page) -> None:
        for name in PAGES:
            if name == "model":
                page.locator(".model .name", has_text="onerror").click()
            else:
                navigation = page.get_by_role("navigation", name="Pages")
                navigation.get_by_role("link", name=re.compile(name, re.IGNORECASE)).click()
            page.locator(SHOWN[name]).first.wait_for()

    use(proxy)
    lost = "Failed to load resource"
    with (
        serving_below("/llm", proxy.port) as address,
        opened(browser, proxy, f"{address}/ui/", may_say=lost, **login) as page,
    ):
        show_all(page)
        assert proxy.stop() == 0
        expect_text(page, "#connection", "^lost$")
        for link in page.get_by_role("navigation", name="Pages").get_by_role("link").all():
            link.click()
            page.locator("main h1").wait_for()
            assert "cannot be shown" not in page.locator("main").inner_text()
        options = ["--listen", f"127.0.0.1:{proxy.port}"]
        use(serve(models, config=config, options=options))
        expect_text(page, "#connection", "^live$")
        show_all(page)


def test_ui_pages_through_10_000_requests(browser: Browser, many: SwapchartProcess) -> None:
    with opened(browser, many, "/ui/requests") as page:
        expect_text(page, "#page-number", "^page 1 of 401$")
        assert page.locator("tr.done").count() == 25
        page.locator("#older").click()
        expect_text(page, "#page-number", "^page 2 of 401$")
        page.locator("#newer").click()
        page.evaluate(
            """() => import("/ui/store.js").then((store) => {
              const row = (n) => ({id: `f${n}`, model: "m", method: "POST", req_path: "/x",
                remote_ip: "", resp_status: 0, resp_bytes: 0, is_waiting: false, began: n});
              const numbers = [...Array(10_000).keys()];
              store.flights.value = new Map(numbers.map((n) => [`f${n}`, row(n)]));
            })"""
        )
        expect_text(page, ".more", "100 more of 9900")
        assert page.locator("tr.live").count() == 100


def test_ui_follows_5_megabytes_of_logs(browser: Browser, many: SwapchartProcess) -> None:
    """The last lines are shown, the page keeps a bounded part and stays usable meanwhile."""
    with opened(browser, many, "/ui/models?model=chatty") as page:
        expect_text(page, "#model .badge", "^stopped$")
        page.locator("#model button.start").click()
        page.get_by_role("link", name="Requests").click()  # usable meanwhile
        page.locator("#page-requests").wait_for()
        page.go_back()
        expect_text(page, "#model .badge", "^ready$")
        expect_text(page, "#model-log", "00049999 x")
        length = page.evaluate("document.querySelector('#model-log').textContent.length")
        assert length < 3_000_000
        page.get_by_role("link", name="Logs").click()
        page.locator("#log-filter").fill("00049998")
        expect_text(page, "#upstream-log", r"^[^\n]*00049998[^\n]*\n*$")


@pytest.mark.measures
def test_ui_shows_models_within_2_seconds_on_a_slow_line(browser: Browser, serve: Serve) -> None:
    """At 50 KB/s with full logs, in five times the bound; the first page has less than 120 KB."""
    proxy = serve({"chatty": chatty(), "b": demo_model("b")})
    assert proxy.chat("chatty").status == 200
    assert len(proxy.call("GET", "/logs/stream/chatty?no-follow").body) > 1_000_000
    found = [first_models(browser, proxy) for _ in range(3)]
    print(f"first models after {[f'{took:.0f} ms, {total:.0f} bytes' for took, total in found]}")

    assert max(total for _, total in found) < 120_000
    assert min(took for took, _ in found) < 10_000, found  # 1.4 to 2.2 s on two busy cores


def first_models(browser: Browser, proxy: SwapchartProcess) -> tuple[float, float]:
    """Return the milliseconds until the first models are shown, and the bytes of the page."""
    with opened(browser, proxy, "about:blank") as page:
        session = page.context.new_cdp_session(page)
        session.send("Network.enable")
        line = {"offline": False, "latency": 20, "downloadThroughput": 50 * 1024}
        session.send("Network.emulateNetworkConditions", {**line, "uploadThroughput": 50 * 1024})
        received: list[float] = []
        session.on(
            "Network.loadingFinished", lambda event: received.append(event["encodedDataLength"])
        )
        page.goto("/ui/", wait_until="commit")
        expect_text(page, "a.lane-name", "chatty")
        took: float = page.evaluate("performance.now()")
        page.wait_for_load_state("load")
        return took, sum(received)
