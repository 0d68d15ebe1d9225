"""The web UI in a real Chromium, against a real proxy; its files without a browser."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import shlex
import sys
from collections.abc import Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tools.browser import CONTRAST, expect_text, opened, wait_for
from tools.prefix_relay import serving_below
from tools.rows import row
from tools.swapchart_process import Edited, Serve, SwapchartProcess, chat_body, demo_model

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page, Request

HOSTILE = "<img src=x onerror=\"document.body.dataset.pwned='yes'\">"
UI = Path(__file__).parents[2] / "adapters" / "proxy" / "ui"
OWN = sorted(
    path.relative_to(UI).as_posix() for path in UI.rglob("*.js") if "vendor" not in path.parts
)
STATIC = [*OWN, "vendor/preact.js", "vendor/uplot.js", "style.css", "favicon.svg"]


# ---- what the files say, without a browser ---------------------------------------------
class _Found(HTMLParser):
    """Collects the tags of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


@pytest.fixture(scope="module")
def shared(serve_module: Serve) -> SwapchartProcess:
    """A proxy with a model that loads, one that cannot, and one with hostile texts."""
    hook = {"run": f"echo {shlex.quote(HOSTILE)}", "shell": True}
    return serve_module(
        {
            "good": demo_model(
                "good", rate=30, name="Good model", description="Says things", aliases=["better"]
            ),
            "org/other": demo_model("other"),
            "bad": demo_model("bad", "--fail-load"),
            f"x/{HOSTILE}": demo_model(
                "hostile", name=HOSTILE, description=HOSTILE, aliases=[f"a{HOSTILE}"],
                afterHealthy=hook,
            ),
        },
        config={"captureBuffer": 5, "profiles": {"day": {"pins": {"main": "good"}}}},
    )  # fmt: skip


@pytest.fixture
def proxy(shared: SwapchartProcess) -> SwapchartProcess:
    """Return the shared proxy with all models stopped, whatever ran before."""
    assert shared.call("POST", "/api/models/unload").status == 200
    return shared


def test_ui_is_served(proxy: SwapchartProcess) -> None:
    """Each file of the page is served, with its type, its policy and a tag."""
    page = proxy.call("GET", "/ui/")
    assert page.status == 200
    assert page.header("content-type") == "text/html; charset=utf-8"
    for name in STATIC:
        answer = proxy.call("GET", f"/ui/{name}")
        assert answer.status == 200, name
        assert "default-src 'self'" in (answer.header("content-security-policy") or "")
        again = proxy.call("GET", f"/ui/{name}", headers={"If-None-Match": answer.header("etag")})
        assert again.status == 304
    named = [given["href"] for tag, given in _Found(page.body.decode()).tags if tag == "link"]
    assert all((UI / str(name)).is_file() for name in named)
    assert "javascript" in (proxy.call("GET", "/ui/app.js").header("content-type") or "")
    assert proxy.call("GET", "/ui/style.css").header("content-type") == "text/css; charset=utf-8"
    assert proxy.call("GET", "/favicon.ico").body.startswith(b"\x00\x00\x01\x00")


def test_ui_files_are_compressed_for_clients_that_take_it(proxy: SwapchartProcess) -> None:
    plain = proxy.call("GET", "/ui/style.css")
    packed = proxy.call("GET", "/ui/style.css", headers={"Accept-Encoding": "gzip, deflate"})

    assert packed.header("content-encoding") == "gzip"
    assert plain.header("content-encoding") is None
    assert gzip.decompress(packed.body) == plain.body
    assert packed.header("etag") != plain.header("etag")
    assert len(packed.body) < len(plain.body) / 2


def test_ui_keeps_to_its_policy(proxy: SwapchartProcess) -> None:
    """No script, style or handler in the page, nothing from elsewhere, no text read as HTML."""
    page = proxy.call("GET", "/ui/")
    text = page.body.decode()
    script = "".join((UI / name).read_text() for name in OWN)
    style = (UI / "style.css").read_text()
    tags = _Found(text).tags

    policy = page.header("content-security-policy") or ""
    assert "unsafe" not in policy
    assert "style-src 'self'" in policy
    assert not [tag for tag, given in tags if tag == "style" or "style" in given]
    scripts = [given for tag, given in tags if tag == "script"]
    assert [given.get("src") for given in scripts] == ["app.js"]
    assert not [given for _, given in tags if any(name.startswith("on") for name in given)]
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(|dangerouslySet", script
    )
    elsewhere = re.compile(r"(?:https?:)?//(?!www\.w3\.org/2000/svg)[\w.-]+\.\w")
    assert not [part for part in (text, style) if elsewhere.search(part)]


def test_vendored_libraries_are_the_published_ones() -> None:
    """Each file has the checksum of its entry; each package its version and its license."""
    facts = json.loads((UI / "vendor" / "versions.json").read_text())
    licenses = (UI / "vendor" / "LICENSES.txt").read_text()

    assert {*facts, "versions.json"} == {path.name for path in (UI / "vendor").iterdir()}
    for name, entry in facts.items():
        data = (UI / "vendor" / name).read_bytes()
        assert hashlib.sha256(data).hexdigest() == entry["sha256"], name
        for package, version in entry["packages"].items():
            assert f"{package} {version}" in (licenses if name.endswith(".txt") else data.decode())


def test_chart_endpoint_returns_boxes_and_arrows(proxy: SwapchartProcess) -> None:
    """The chart comes as boxes and arrows, with the configuration in which the model is."""
    value = proxy.get("/api/models/better/chart")
    states = {state["id"]: state for state in value["states"]}

    assert value["model"] == "good"
    assert value["configuration"][0] == "alive"
    assert states["health_checking"]["above"] == ["alive", "starting"]
    boxes = {name: state["place"] for name, state in states.items()}
    assert boxes["alive"]["y"] < boxes["starting"]["y"] < boxes["health_checking"]["y"]
    assert all(box["x"] + box["width"] <= value["width"] for box in boxes.values())
    assert [name for name, state in states.items() if state["is_serving"]] == ["ready"]
    assert {"stopped", "tripped"} <= {name for name, state in states.items() if state["is_quiet"]}
    ways = {(way["source"], way["target"]): way["labels"] for way in value["transitions"]}
    assert all(source in states and target in states for source, target in ways)
    (label,) = ways["before_start", "launching"]
    assert label["events"] == ["hooks_done"]
    assert proxy.call("GET", "/api/models/nobody/chart").status == 404


# ---- in a browser ----------------------------------------------------------------------
def row_of(model: str) -> str:
    """Return the selector of a model's row."""
    return f'.model[data-key="{model}"]'


def load(page: Page, model: str) -> None:
    """Load a model by its button, and see it ready."""
    page.locator(f"{row_of(model)} button.start").click()
    expect_text(page, f"{row_of(model)} .badge", "^ready$")


def unload_all(page: Page, *models: str) -> None:
    """Unload all by the button, and see *models* stopped."""
    page.locator("#unload-all").click()
    for model in models:
        expect_text(page, f"{row_of(model)} .badge", "^stopped$")


def test_ui_shows_the_models(browser: Browser, proxy: SwapchartProcess) -> None:
    """The list has each model with name, description, aliases and state, and is live."""
    with opened(browser, proxy, "/") as page:
        expect_text(page, "#connection", "^live$")
        assert page.url.endswith("/ui/")
        assert page.title() == "Timeline · swapchart"
        page.get_by_role("link", name="Models", exact=True).click()
        row = page.locator(row_of("good"))
        assert row.locator(".name").inner_text() == "Good model"
        assert row.locator(".aliases").inner_text() == "good, better"
        assert row.locator(".description").inner_text() == "Says things"
        expect_text(page, f"{row_of('good')} .badge", "^stopped$")
        assert page.locator(".model").count() == 4
        assert page.title() == "Models · swapchart"


def test_ui_loads_and_unloads(browser: Browser, proxy: SwapchartProcess) -> None:
    """A click loads a model, the picture of its life follows it, and a click unloads it."""
    with opened(browser, proxy, "/ui/models") as page:
        page.get_by_role("link", name="Good model").click()
        page.mouse.move(0, 0)  # away from the chart
        expect_text(page, ".state.active:not(.group) .state-name", "^stopped$")
        expect_text(page, "#ways-title", "^Transitions from stopped$")
        assert page.locator("#ways td.event.user", has_text="request").count() == 1
        assert page.locator("#chart svg .way").count() >= 2
        page.locator("#model button.start").click()
        expect_text(page, "#model .badge", "^ready$")
        assert proxy.state("good") == "ready"
        expect_text(page, ".state.active:not(.group) .state-name", "^ready$")
        expect_text(page, "#chart-now", "^ready: the health check passed")
        assert page.locator("#chart svg .taken").count() == 1
        expect_text(page, "#history tbody tr:last-child td:nth-child(3)", "^ready$")
        expect_text(page, "#model-log", "model loaded")
        expect_text(page, "#model-facts", rf"process {proxy.running()['good']['pid']}\b")
        page.locator("#model button.stop").click()
        expect_text(page, "#model .badge", "^stopped$")
        assert proxy.state("good") == "stopped"
        expect_text(page, "#history summary >> nth=0", "stopped: unloaded by API$")


def test_ui_points_at_any_state(browser: Browser, proxy: SwapchartProcess) -> None:
    """Whichever state has the focus tells where it leads, those above it included."""
    with opened(browser, proxy, "/ui/models?model=good") as page:
        page.locator('[data-state="health_checking"] > .state-name').focus()

        expect_text(page, "#ways-title", "^Transitions from health_checking$")
        targets = page.locator("#ways td:nth-child(3)").all_inner_texts()
        assert {"after_healthy", "terminating", "sweeping"} <= set(targets)


def test_ui_shows_why_a_model_failed(browser: Browser, proxy: SwapchartProcess) -> None:
    """A model that ends while it loads shows its exit code, in the list and in its history."""
    with opened(browser, proxy, "/ui/models?model=bad") as page:
        page.locator("#model button.start").click()

        expect_text(page, "#model .trouble", r"^Failed.*: exit code 1$")
        page.locator("#history td", has_text="exit code 1").first.wait_for()
        expect_text(page, "#model-log", "failed to load model")


def test_ui_counts_the_requests_of_a_model(browser: Browser, proxy: SwapchartProcess) -> None:
    """As long as they last, and no longer."""
    with opened(browser, proxy, "/ui/models") as page:
        expect_text(page, "#connection", "^live$")
        with proxy.open_stream("good"):
            expect_text(page, f"{row_of('good')} .load", "^1 running$")
            with proxy.open_chat("org/other"):
                expect_text(page, f"{row_of('org/other')} .load", "^1 waiting$")
        expect_text(page, f"{row_of('good')} .load", "^$")
        expect_text(page, f"{row_of('org/other')} .load", "^$")


def test_ui_counts_down_to_an_unload_and_pins(browser: Browser, serve: Serve) -> None:
    """A loaded model shows when it is unloaded; pinned it stays; stopped it shows its load time."""
    proxy = serve({"a": demo_model("a", ttl=600)})
    with opened(browser, proxy, "/ui/models") as page:
        load(page, "a")
        expect_text(page, f"{row_of('a')} .times", "^unloads in (9 min|10 min)")
        page.get_by_role("button", name="Pin a until").click()
        expect_text(page, f"{row_of('a')} .times", "^pinned$")
        page.get_by_role("button", name="Unpin a:").press("Enter")
        expect_text(page, f"{row_of('a')} .times", "^unloads in (9 min|10 min)")
        page.goto("/ui/models?model=a")
        page.get_by_role("button", name="Pin a until").press("Space")
        expect_text(page, "#model .times", "^pinned$")
        page.get_by_role("button", name="Unpin a:").press("Space")
        expect_text(page, "#model .times", "^unloads in (9 min|10 min)")
        page.go_back()
        page.locator(f"{row_of('a')} button.stop").click()
        expect_text(page, f"{row_of('a')} .times", r"^loads in about [\d.]+ m?s$")


def test_ui_after_a_restart_knows_how_long_a_model_loads(browser: Browser, serve: Serve) -> None:
    """Before it has been started again, by the journal."""
    models = {"a": demo_model("a"), "b": demo_model("b")}
    first = serve(models)
    assert first.chat("a").status == 200
    assert first.stop() == 0
    config = str(first.folder / "config.yaml")
    serving = ["serve", "--config", config, "--listen", "127.0.0.1:0"]
    again = serve(
        argv=[sys.executable, "-m", "swapchart", *serving],
        env={"SWAPCHART_STATE_DIR": str(first.folder / "state")},
    )
    with opened(browser, again, "/ui/models") as page:
        expect_text(page, f"{row_of('a')} .times", r"^loads in about [\d.]+ m?s$")
        assert page.locator(f"{row_of('b')} .times").inner_text() == ""


def test_ui_shows_and_cancels_requests(browser: Browser, proxy: SwapchartProcess) -> None:
    """Running and waiting requests are shown; a click cancels one, and finished ones are listed."""
    with opened(browser, proxy, "/ui/requests") as page:
        expect_text(page, "#connection", "^live$")
        with proxy.open_stream("good"), proxy.open_chat("org/other") as waiting:
            expect_text(page, "tr.queued td:nth-child(2)", "^org/other$")
            expect_text(page, "tr.queued .why", "place 1 in the queue.*good has 1 request")
            expect_text(page, "#busy", "^2$")
            flight = page.locator("tr.live:not(.queued)", has_text="good")
            expect_text(page, flight.locator(".why"), "responding 200")
            flight.get_by_role("button", name="Cancel").click()
            assert waiting.read_answer().status == 200
        wait_for(page, lambda: page.locator("tr.live").count() == 0, "the end of both")
        page.locator("#busy").wait_for(state="hidden")
        done = page.locator("tr.done", has_text="org/other").first
        expect_text(page, done.locator("td").nth(5), "^2")  # an older row may come first
        done.get_by_role("button", name="Show").click()
        expect_text(page, "#capture", r'/v1/chat/completions.*"max_tokens": 2.*"usage"')
        page.get_by_role("button", name="Close").click()
        page.locator("#filter-model").select_option("good")
        expect_text(page, "tr.done >> nth=0 >> td >> nth=1", "^good$")


def test_ui_shows_logs_as_they_come(browser: Browser, proxy: SwapchartProcess) -> None:
    """Both logs come with their history, go on, and show wanted lines only."""
    with opened(browser, proxy, "/ui/logs") as page:
        expect_text(page, "#connection", "^live$")
        assert proxy.chat("good").status == 200
        expect_text(page, "#upstream-log", r"model loaded.*POST /v1/chat/completions 200")
        expect_text(page, "#proxy-log", r'POST /v1/chat/completions HTTP/1.1" 200')
        page.locator("#log-filter").fill("MODEL LOADED")
        expect_text(page, "#upstream-log", r"^[^\n]*model loaded")
        assert "POST" not in page.locator("#upstream-log").inner_text()


@row("C37")
def test_ui_shows_hostile_texts_as_texts(browser: Browser, proxy: SwapchartProcess) -> None:
    """A name, a description, an alias, a log line and a path are never read as HTML."""
    model = f"x/{HOSTILE}"
    with opened(browser, proxy, "/ui/models") as page:
        row = page.locator(".model", has_text="onerror")
        assert row.locator(".name").inner_text() == HOSTILE
        assert row.locator(".description").inner_text() == HOSTILE
        assert f"a{HOSTILE}" in row.locator(".aliases").inner_text()
        row.locator(".name").click()
        page.locator("#model button.start").click()
        expect_text(page, ".state.active:not(.group) .state-name", "^ready$")
        expect_text(page, "#model-log", re.escape(HOSTILE))
        assert page.locator("#model-title").inner_text() == HOSTILE
        page.locator("#history small", has_text="afterHealthy: ok").first.wait_for()
        body = chat_body(model)
        assert proxy.call("POST", "/v1/chat/completions", value=body).status == 200
        page.get_by_role("link", name="Logs").click()
        expect_text(page, "#upstream-log", re.escape(HOSTILE))
        page.get_by_role("link", name="Requests").click()
        expect_text(page, "tr.done >> nth=0 >> td >> nth=1", re.escape(model))
        assert page.locator("img:not([src$='favicon.svg'])").count() == 0
        page.get_by_role("link", name="Models", exact=True).click()
        unload_all(page, "good", "org/other")


def test_ui_addresses_work_with_the_back_button(browser: Browser, proxy: SwapchartProcess) -> None:
    """Pages have addresses, the browser's back button works, and llama-swap's are understood."""
    with opened(browser, proxy, "/ui/#/logs") as page:
        page.locator("#page-logs").wait_for()
        page.goto("/upstream")
        page.locator("#page-models").wait_for()
        page.get_by_role("link", name="org/other", exact=True).click()
        expect_text(page, "#model-title", "^org/other$")
        assert page.url.endswith("/ui/models?model=org%2Fother")
        page.get_by_role("link", name="Requests").click()
        page.locator("#page-requests").wait_for()
        page.go_back()
        expect_text(page, "#model-title", "^org/other$")
        page.locator("#profile").select_option("day")
        page.reload()
        expect_text(page, "#profile option:checked", "^day$")
        page.locator("#profile").select_option("none")
        page.wait_for_function("document.getElementById('profile').value === ''")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_ui_fits_a_phone_in_light_and_dark(
    browser: Browser, proxy: SwapchartProcess, scheme: str
) -> None:
    """At a phone's width nothing sticks out, and texts stand out from what is behind them."""
    phone: dict[str, Any] = {"viewport": {"width": 360, "height": 740}, "color_scheme": scheme}
    with opened(browser, proxy, "/ui/models?model=good", **phone) as page:
        page.locator(".state.active").first.wait_for()
        for name in ("Models", "Requests", "Logs"):
            page.get_by_role("link", name=name, exact=False).first.click()
            assert page.evaluate("document.documentElement.scrollWidth") <= 360, name
        page.locator("#page-logs").wait_for()
        page.goto("/ui/models?model=good")
        page.locator(".state.active").first.wait_for()
        for selector in (".description", ".badge", ".state.active .state-name", "nav a"):
            ratio = page.evaluate(CONTRAST, selector)
            assert ratio >= 4.5, (selector, ratio)
        is_dark = page.evaluate("luminance(getComputedStyle(document.body).backgroundColor) < 0.2")
        assert is_dark == (scheme == "dark")


def test_ui_works_by_keyboard(browser: Browser, proxy: SwapchartProcess) -> None:
    """Tab leads to a model's button, Enter presses it, and the focus stays through the change."""
    with opened(browser, proxy, "/ui/models") as page:
        expect_text(page, "#connection", "^live$")
        focused = "document.activeElement.getAttribute('aria-label')"
        for _ in range(40):
            page.keyboard.press("Tab")
            if page.evaluate(focused) == "Load good":
                break
        assert page.evaluate(focused) == "Load good"
        page.keyboard.press("Enter")
        expect_text(page, f"{row_of('good')} .badge", "^ready$")
        page.locator(f"{row_of('good')} button.stop").focus()
        page.keyboard.press("Enter")
        expect_text(page, f"{row_of('good')} .badge", "^stopped$")


def test_ui_asks_for_a_key(browser: Browser, serve: Serve) -> None:
    """The browser asks for a key; one that may not do all is asked for again, by the page."""
    keys = [{"key": "sk-admin"}, {"key": "sk-infer", "scopes": ["infer"]}]
    proxy = serve({"a": demo_model("a")}, config={"apiKeys": keys})

    refused = "the server responded with a status of 40[13]"
    asked = proxy.call("GET", "/ui/")
    assert (asked.status, asked.header("www-authenticate")) == (401, 'Basic realm="swapchart"')
    with opened(browser, proxy, "/ui/models", http_credentials=basic("sk-admin")) as page:
        expect_text(page, "#connection", "^live$")
        load(page, "a")
        assert page.evaluate("Object.keys(localStorage).length + document.cookie.length") == 0
    infer = basic("sk-infer")
    with opened(browser, proxy, "/ui/models", may_say=refused, http_credentials=infer) as page:
        expect_text(page, "#key-why", "no admin scope")
        give_key(page, "sk-wrong")
        expect_text(page, "#key-why", "invalid or missing")
        give_key(page, "sk-admin")
        expect_text(page, "#connection", "^live$")
        page.reload()
        expect_text(page, "#connection", "^live$")
        unload_all(page, "a")
        assert "sk-admin" not in page.content()


def test_ui_goes_on_without_another_key(browser: Browser, serve: Serve) -> None:
    """A person may decline to give a key: from then on only commands ask for one."""
    keys = [{"key": "sk-admin"}, {"key": "sk-infer", "scopes": ["infer"]}]
    proxy = serve({"a": demo_model("a")}, config={"apiKeys": keys})
    given: dict[str, Any] = {"http_credentials": basic("sk-infer"), "may_say": "status of 40[13]"}
    with opened(browser, proxy, "/ui/playground", **given) as page:
        expect_text(page, "#key-why", "no admin scope")
        give_key(page, "sk-wrong")
        expect_text(page, "#key-why", "invalid or missing")
        page.get_by_role("button", name="Go on without").click()
        page.locator("#key-dialog").wait_for(state="hidden")
        expect_text(page, "#connection", "^no access$")
        page.locator("#prompt").fill("Hello")
        page.keyboard.press("Enter")
        expect_text(page, ".turn.assistant .timing", "in all$")
        page.reload()
        page.get_by_role("link", name="Models").click()
        expect_text(page, "main", "no admin scope")
        page.get_by_role("link", name="Configuration").click()
        expect_text(page, "main .notice", "no admin scope")
        page.get_by_role("link", name="Logs").click()
        expect_text(page, "#proxy-log", "no admin scope")
        assert not page.locator("#key-dialog").is_visible()
        page.locator("#ask-key").click()
        page.locator("#key-dialog[open]").wait_for()
        page.keyboard.press("Escape")
        page.get_by_role("link", name="Configuration").click()
        page.locator("#reload").click()
        give_key(page, "sk-admin")
        expect_text(page, "#connection", "^live$")
        expect_text(page, "#files li", "config")


def test_ui_works_below_a_path_of_a_reverse_proxy(
    browser: Browser, proxy: SwapchartProcess
) -> None:
    """Files, pages, streams and commands of the page are relative to where it was opened."""
    with (
        serving_below("/llm", proxy.port) as address,
        opened(browser, proxy, f"{address}/ui/models") as page,
    ):
        expect_text(page, "#connection", "^live$")
        load(page, "good")
        page.get_by_role("link", name="Requests").click()
        assert page.url == f"{address}/ui/requests"
        page.reload()
        expect_text(page, "#connection", "^live$")
        page.get_by_role("link", name="Models").click()
        page.get_by_role("link", name="Good model").click()
        page.locator("#model").wait_for()
        assert page.url == f"{address}/ui/models?model=good"
        expect_text(page, "#model-log", "model loaded")
        assert page.locator("#model-open").get_attribute("href") == "/llm/upstream/good/"
        page.goto(f"{address}/ui/models/")
        assert page.url == f"{address}/ui/models"


def test_ui_whose_origin_is_refused_names_it_and_asks_for_no_key(
    browser: Browser, proxy: SwapchartProcess
) -> None:
    """Behind a reverse proxy that changes Host, the page gives the key and its value."""
    refused = "the server responded with a status of 403"
    with (
        serving_below("/llm", proxy.port, origin="http://llm.example") as address,
        opened(browser, proxy, f"{address}/ui/models", may_say=refused) as page,
    ):
        expect_text(page, "#connection", "^live$")
        page.locator(f"{row_of('good')} button.start").click()
        expect_text(page, "#refused", r"http://llm\.example.*allowedOrigins")
        assert not page.locator("#key-dialog").is_visible()


def basic(key: str) -> Mapping[str, str]:
    """Return what a person types when the browser asks."""
    return {"username": "me", "password": key}


def give_key(page: Page, key: str) -> None:
    """Type a key when the page asks."""
    page.locator("#key-dialog[open]").wait_for()
    page.locator("#key").fill(key)
    page.get_by_role("button", name="Use this key").click()


def test_ui_reconnects_after_a_restart(browser: Browser, serve: Serve) -> None:
    """When the proxy ends the page says so, and goes on when there is one again."""
    proxy = serve({"a": demo_model("a")})
    lost = "net::ERR_(CONNECTION|INCOMPLETE)"
    with opened(browser, proxy, "/ui/models", may_say=lost) as page:
        expect_text(page, "#connection", "^live$")
        assert proxy.stop() == 0
        expect_text(page, "#connection", "^lost$")
        page.get_by_role("link", name="System").click()
        expect_text(page, "main .notice", "^This page is loaded when the proxy responds")
        again = serve({"b": demo_model("b")}, options=["--listen", f"127.0.0.1:{proxy.port}"])
        expect_text(page, "#connection", "^live$")
        page.locator("#devices").wait_for()
        page.get_by_role("link", name="Models").click()
        page.locator(row_of("b")).wait_for()
        assert page.locator(row_of("a")).count() == 0
        assert again.port == proxy.port


def test_ui_in_a_hidden_tab_ends_its_streams(browser: Browser, proxy: SwapchartProcess) -> None:
    """A hidden tab ends its streams, since a browser has few connections; seen again it is live."""
    turn = """isHidden => {
      Object.defineProperty(document, "hidden", {value: isHidden, configurable: true});
      document.dispatchEvent(new Event("visibilitychange"));
    }"""

    def name_of(request: Request) -> str:
        return request.url.partition("?")[0].rpartition("/")[2]

    assert proxy.chat("good").status == 200
    with opened(browser, proxy, "/ui/models?model=good") as page:
        expect_text(page, "#connection", "^live$")
        expect_text(page, "#model-log", "model loaded")  # its stream has begun
        ended: set[str] = set()
        page.on("requestfailed", lambda request: ended.add(name_of(request)))
        page.evaluate(turn, True)
        expect_text(page, "#connection", "^paused$")
        wait_for(page, lambda: ended >= {"events", "good"}, f"two streams end, not {ended}")
        assert ended == {"events", "good"}
        page.evaluate(turn, False)
        expect_text(page, "#connection", "^live$")


def test_ui_change_is_held_back_shows_the_command(browser: Browser, serve: Serve) -> None:
    """A file that lost most of its models is not applied; the page says so until it is."""
    models = {name: demo_model(name) for name in ("a", "b", "c")}
    edited = Edited(serve, models, "--watch-config")
    edited.proxy.may_log = "the old one stays|models are gone"
    with opened(browser, edited.proxy, "/ui/models") as page:
        expect_text(page, "#connection", "^live$")
        assert page.locator("#held-back").is_hidden()
        edited.path.write_text(json.dumps({**edited.value, "models": {"a": models["a"]}}))
        expect_text(page, "#held-back", "2 of 3 models are gone.*kill -HUP")
        url = f"http://127.0.0.1:{edited.proxy.port}"
        expect_text(page, "#held-back-command", f"^swapchart config reload --url {url}$")
        page.reload()
        expect_text(page, "#held-back", "2 of 3 models are gone")
        assert edited.proxy.call("POST", "/api/config/reload").status == 200
        wait_for(page, page.locator("#held-back").is_hidden, "no notice any more")
