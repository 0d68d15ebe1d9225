"""Memory in the web UI, in a real Chromium: bars of the pools, notices, causes of a request."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
from tools.browser import CONTRAST, expect_text, opened
from tools.swapchart_process import Serve, SwapchartProcess, demo_model

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.slow

GIB = 1 << 30
HOSTILE = "<img src=x onerror=\"document.body.dataset.pwned='yes'\">"
#: Shows a state of memory, and keeps it when the proxy reports its own: under load it often does.
DRAW = """state => import('/ui/store.js').then(({ memory }) => {
  window.drawn = memory.value = state;
  window.keep ??= memory.subscribe((value) => {
    if (value !== window.drawn) queueMicrotask(() => { memory.value = window.drawn; });
  });
})"""


def _model(name: str, declared: int, allocated: int, **keys: Any) -> dict[str, Any]:
    options = ("--allocate-mib", str(allocated), "--quiet")
    return demo_model(name, *options, memory=f"{declared}MiB", **keys)


@pytest.fixture(scope="module")
def shared(serve_module: Serve) -> SwapchartProcess:
    models = {
        "a": _model("a", 250, 100), "b": _model("b", 120, 60), "c": _model("c", 150, 60),
        "grown": _model("grown", 100, 460),
    }  # fmt: skip
    memory = {"onPressure": "warn", "pools": {"RAM": {"limit": "400MiB"}}}
    return serve_module(models, config={"memory": memory})


@pytest.fixture
def proxy(shared: SwapchartProcess) -> SwapchartProcess:
    """Return the shared proxy with all models stopped, whatever ran before."""
    assert shared.unload().status == 200
    return shared


def words(page: Page, pool: str) -> dict[str, str]:
    """Return the list of a pool as a screen reader reads it: name -> amount and note."""
    rows = page.get_by_role("list", name=f"Memory of {pool}").get_by_role("listitem")
    texts = [re.sub(r"\s+", " ", text).strip() for text in rows.all_inner_texts()]
    found = (re.fullmatch(r"(.+?) (-?[\d.]+ [GM]iB) ?(.*)", text) for text in texts)
    return {match[1]: f"{match[2]} {match[3]}".strip() for match in found if match}


def widths(page: Page, pool: str) -> dict[str, float]:
    """Return the share of each part of the bar, as it is drawn."""
    script = """item => {
      const whole = item.querySelector(".bar").clientWidth;
      return Object.fromEntries([...item.querySelectorAll(".bar > .part")].map(
        (part) => [part.dataset.key, part.getBoundingClientRect().width / whole]));
    }"""
    shares: dict[str, float] = page.locator(f'.pool[data-key="{pool}"]').evaluate(script)
    return shares


def test_ui_memory_bars_follow_the_models(browser: Browser, proxy: SwapchartProcess) -> None:
    with opened(browser, proxy, "/ui/models") as page:
        expect_text(page, "#pools .facts", r"limit 400 MiB · 0 MiB held by models · 400 MiB free")
        assert proxy.chat("a").status == 200
        expect_text(page, "#pools .facts", "250 MiB held by models · 150 MiB free")
        expect_text(page, ".parts [data-key='model a'] small", r"ready, declared, 1\d\d MiB in use")
        assert proxy.chat("b").status == 200
        expect_text(page, ".parts [data-key='model b'] small", "ready")
        shown, drawn = words(page, "RAM"), widths(page, "RAM")
        assert re.match(r"250 MiB ready, declared, 1\d\d MiB in use, \d+ MiB reserved", shown["a"])
        assert shown["b"].startswith("120 MiB ready")
        assert shown["free"] == "30 MiB"
        assert {"other programs", "reserve", "beyond the limit"} <= {*shown}
        assert drawn["model a"] == pytest.approx(250 / 400, abs=0.01)
        assert drawn["part free"] == pytest.approx(30 / 400, abs=0.01)
        assert drawn["part outside"] == 0
        assert sum(drawn.values()) == pytest.approx(1, abs=0.02)
        reserved = page.locator(".bar [data-key='model a'] .reserved")
        assert 0 < float(reserved.evaluate("item => parseFloat(item.style.width)")) < 100
        assert proxy.unload().status == 200
        expect_text(page, "#pools .facts", "0 MiB held by models · 400 MiB free")
        assert "a" not in words(page, "RAM")


def test_ui_memory_of_a_model_says_what_a_request_would_cause(
    browser: Browser, proxy: SwapchartProcess
) -> None:
    with opened(browser, proxy, "/ui/models?model=c") as page:
        expect_text(page, "#model-memory-outcome", "^A request starts it: there is room.$")
        for name in ("a", "b"):
            assert proxy.chat(name).status == 200
        expect_text(page, "#model-memory-outcome", "^A request starts it, and evicts [ab].$")
        expect_text(page, "#model-memory-sum li:first-child", "^c on RAM: ")
        page.locator("#model-memory-sum li", has_text="goes: ").wait_for()


def test_ui_memory_notices_come_by_themselves(browser: Browser, proxy: SwapchartProcess) -> None:
    """A model that holds more than it declares, and more than the pool has, is noticed twice."""
    with opened(browser, proxy, "/ui/models") as page:
        expect_text(page, "#connection", "^live$")
        assert proxy.chat("grown").status == 200
        notice = page.get_by_role("status", name="Notices of memory").get_by_role("listitem")
        exceeded = r"^grown has held 4\d\d MiB of RAM and declares 100 MiB: raise its `memory`$"
        expect_text(page, notice.filter(has_text="declares"), exceeded)
        expect_text(
            page, notice.filter(has_text="too full"), r"^pool RAM is too full: \d+ MiB more"
        )
        assert page.locator(".pool.full").count() == 1
        assert proxy.unload().status == 200
        notice.filter(has_text="too full").wait_for(state="detached")


def _pool(name: str, **facts: Any) -> dict[str, Any]:
    return {
        "name": name, "capacity": 24 * GIB, "reserve": GIB, "limit": None, "used": None,
        "foreign": 0, "others": {}, "held": 0, "free": 23 * GIB, "stale": False,
        "source": "nvml", **facts,
    }  # fmt: skip


def _holder(name: str, claim: int, **facts: Any) -> dict[str, Any]:
    return {
        "model": name, "phase": "ready", "claim": {"GPU0": claim}, "seen": {}, "source": "learned",
        "pinned": False, "load_s": 1.0, "idle_s": 0.0, **facts,
    }  # fmt: skip


STATE: dict[str, Any] = {
    "mode": "observe", "failure": "", "learned": [],
    "pools": [
        _pool("GPU0", foreign=2 * GIB, others={HOSTILE: GIB}, held=18 * GIB, free=3 * GIB),
        _pool("GPU1", held=25 * GIB, free=-2 * GIB, stale=True, source=""),
    ],
    "models": [
        _holder(HOSTILE, 6 * GIB, phase="starting"),
        _holder("big", 4 * GIB, seen={"GPU0": 5 * GIB}, pinned=True),
    ],
    "notices": [{"kind": "reading", "model": "", "pool": "GPU1", "text": f"GPU1 {HOSTILE}"}],
}  # fmt: skip


def test_ui_memory_of_any_state_is_told_in_words(browser: Browser, proxy: SwapchartProcess) -> None:
    """Pools that are too full or not read, hidden models, and names that look like HTML."""
    with opened(browser, proxy, "/ui/models") as page:
        expect_text(page, "#connection", "^live$")
        page.evaluate(DRAW, STATE)
        expect_text(page, "#memory-mode", "^Observed only")
        expect_text(page, "#memory-notices li", f"^{re.escape(f'GPU1 {HOSTILE}')}$")
        shown = words(page, "GPU0")
        assert shown[HOSTILE] == "6.0 GiB starting, learned, reserved"
        assert shown["big"] == (
            "5.0 GiB ready, learned, pinned, 5.0 GiB in use, 1.0 GiB more than it was granted"
        )
        assert shown["other models"] == "7.0 GiB"
        assert shown["other programs"] == f"2.0 GiB {HOSTILE} 1.0 GiB"
        assert "beyond the limit" not in shown
        facts = page.locator('.pool[data-key="GPU1"] .facts').inner_text()
        assert facts.endswith("0 MiB free · not read for a while · declared, not read")
        assert words(page, "GPU1")["free"] == "0 MiB 2.0 GiB too much is held"
        assert widths(page, "GPU0")["part reserve"] == pytest.approx(1 / 24, abs=0.01)
        for pool in ("GPU0", "GPU1"):
            assert sum(widths(page, pool).values()) == pytest.approx(1, abs=0.02)
        page.evaluate(DRAW, {**STATE, "pools": []})
        page.locator("#memory").wait_for(state="detached")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_ui_memory_fits_a_phone_in_light_and_dark(
    browser: Browser, proxy: SwapchartProcess, scheme: str
) -> None:
    """Nothing sticks out, texts stand out from what is behind them, and so do parts of a bar."""
    phone: dict[str, Any] = {"viewport": {"width": 360, "height": 740}, "color_scheme": scheme}
    with opened(browser, proxy, "/ui/models", **phone) as page:
        expect_text(page, "#connection", "^live$")
        names = [f"model-with-a-long-name-{number}" for number in range(8)]
        models = [_holder(name, GIB) for name in names]
        page.evaluate(DRAW, {**STATE, "models": models})
        page.locator(f'[data-key="model {names[-1]}"]').first.wait_for()
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        for selector in (".pool .facts", ".parts .amount", ".parts small", "#memory-notices li"):
            assert page.evaluate(CONTRAST, selector) >= 4.5, selector
        graphic = CONTRAST.replace("getComputedStyle(element).color", "own").replace(
            "let behind = element", "const own = getComputedStyle(element).backgroundColor;\n"
            "  let behind = element.closest('.parts')",
        )  # fmt: skip
        for name in names:
            assert page.evaluate(graphic, f'[data-key="model {name}"] > .swatch') >= 3, name


def test_ui_without_memory_shows_no_pools(browser: Browser, serve: Serve) -> None:
    proxy = serve({"a": demo_model("a")})
    with opened(browser, proxy, "/ui/models?model=a") as page:
        expect_text(page, ".state.active:not(.group) .state-name", "^stopped$")
        assert page.locator("#memory").is_hidden()
        assert page.locator("#model-memory").is_hidden()
