"""Figures of the web UI: ``./dev python tests/tools/ui_figures.py [PART...]``.

Parts are `first` (bytes of the first page, and the time to its first models at 50 KB/s with full
logs), `many` (the time until 500 models are shown, and where it goes) and `axe` (rules and findings
for each page). Each is measured in the system's Chromium against demo models.
"""

from __future__ import annotations

import shlex
import statistics
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from tools.browser import launched, wait_for
from tools.net import port_block
from tools.node import package_folder
from tools.swapchart_process import SwapchartProcess, demo_model

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

LINE = {
    "offline": False, "latency": 20, "downloadThroughput": 50 * 1024,
    "uploadThroughput": 50 * 1024,
}  # fmt: skip
#: Page -> (address below /ui/, selector of an element that shows that it is complete).
PAGES = {
    "timeline": ("", "#timeline-swaps tbody tr"),
    "models": ("models", ".model"),
    "model": ("models?model=a", ".state.active"),
    "requests": ("requests", "tr.done"),
    "playground": ("playground", "#prompt"),
    "logs": ("logs", "#upstream-log .lines"),
    "system": ("system", "#devices dt"),
    "configuration": ("configuration", "#files li"),
    "connect": ("connect", "#snippet-curl"),
}
#: Notes when the stream of events is asked for and begins, and when *wanted* elements that match
#: *selector* are in the page and painted.
WATCH = """([selector, wanted]) => {
  const marks = (window.marks = {});
  const observer = new MutationObserver(() => {
    if (document.querySelectorAll(selector).length < wanted) return;
    observer.disconnect();
    marks.rows = performance.now();
    requestAnimationFrame(() => setTimeout(() => (marks.painted = performance.now())));
  });
  observer.observe(document, { childList: true, subtree: true });
  const fetched = window.fetch;
  window.fetch = async (address, ...more) => {
    const isEvents = String(address).includes("/api/events");
    if (isEvents) marks.asked = performance.now();
    const response = await fetched(address, ...more);
    if (isEvents) marks.answered = performance.now();
    return response;
  };
}"""


def watch(page: Page, selector: str, wanted: int) -> None:
    """Note times in each page that *page* opens from now on; see `WATCH`."""
    page.add_init_script(f"({WATCH})([{selector!r}, {wanted}])")


def painted(page: Page) -> dict[str, float]:
    """Return the times that `watch` has noted, in milliseconds since the navigation."""
    wait_for(page, lambda: bool(page.evaluate("window.marks?.painted")), "what is waited for")
    found: dict[str, float] = page.evaluate(
        """() => {
          const [page] = performance.getEntriesByType("navigation");
          const ends = performance.getEntriesByType("resource")
            .filter((each) => each.name.endsWith(".js")).map((each) => each.responseEnd);
          return {page: page.responseEnd, modules: Math.max(...ends), ...window.marks};
        }"""
    )
    return found


@contextmanager
def serving(models: Mapping[str, Any], **config: Any) -> Iterator[SwapchartProcess]:
    """Serve *models* in the block."""
    with tempfile.TemporaryDirectory() as cwd:
        value = {"startPort": port_block(), "models": models, **config}
        proxy = SwapchartProcess(value, cwd=Path(cwd))
        try:
            yield proxy.wait_listening()
            proxy.stop()
        finally:
            proxy.close()


def many(browser: Browser) -> None:
    """Print how long 500 models take to be shown."""
    with serving({f"model-{number}": demo_model("m") for number in range(500)}) as proxy:
        assert proxy.chat("model-7").status == 200
        rows = []
        for _ in range(7):
            page = browser.new_page()
            watch(page, ".model", 500)
            page.goto(f"http://127.0.0.1:{proxy.port}/ui/models")
            rows.append(painted(page))
            page.close()
    names = ("page", "modules", "asked", "answered", "rows", "painted")
    print("500 models, ms since the navigation; median (lowest) of seven:")
    for name in names:
        values = [row[name] for row in rows]
        print(f"  {name:9} {statistics.median(values):6.0f} ({min(values):.0f})")


def first(browser: Browser) -> None:
    """Print the bytes of the first page, and when its first models are there on a slow line."""
    lines = "for n in range(50_000): print(f'{n:08}', 'x' * 90)"
    chatty = demo_model("m")
    script = f"{shlex.join([sys.executable, '-c', lines])}; exec {' '.join(chatty['cmd'])}"
    chatty["cmd"] = ["sh", "-c", script]
    with serving({"chatty": chatty, "b": demo_model("b")}) as proxy:
        assert proxy.chat("chatty").status == 200
        for _ in range(3):
            page = browser.new_context().new_page()
            session = page.context.new_cdp_session(page)
            session.send("Network.enable")
            session.send("Network.emulateNetworkConditions", LINE)
            ended: list[dict[str, Any]] = []
            session.on("Network.loadingFinished", lambda each, ended=ended: ended.append(each))
            watch(page, "a.lane-name", 1)
            page.goto(f"http://127.0.0.1:{proxy.port}/ui/", wait_until="commit")
            took = painted(page)
            page.wait_for_load_state("load")
            sizes = [each["encodedDataLength"] for each in ended]
            print(
                f"first page: {sum(sizes):.0f} bytes in {len(sizes)} files; at 50 KB/s its first "
                f"model after {took['painted']:.0f} ms, modules after {took['modules']:.0f} ms"
            )
            page.context.close()


def axe(browser: Browser) -> None:
    """Print the findings of axe for each page, in light and in dark."""
    script = package_folder("axe-core") / "node_modules" / "axe-core" / "axe.min.js"
    models = {"a": demo_model("a", description="Chat"), "b": demo_model("b", "--fail-load")}
    with serving(models, captureBuffer=5) as proxy:
        for model in ("a", "b", "a"):
            proxy.chat(model)
        for scheme in ("light", "dark"):
            for name, (path, selector) in PAGES.items():
                page = browser.new_page(color_scheme="dark" if scheme == "dark" else "light")
                page.goto(f"http://127.0.0.1:{proxy.port}/ui/{path}")
                page.locator(selector).first.wait_for()
                page.evaluate(script.read_text())
                found = page.evaluate("axe.run()")
                run = sum(len(found[kind]) for kind in ("passes", "violations", "incomplete"))
                broken = [f"{each['id']} ({each['impact']})" for each in found["violations"]]
                print(
                    f"axe {found['testEngine']['version']}, {name}, {scheme}: {run} rules with "
                    f"something to check, {len(found['passes'])} passed, "
                    f"violations: {', '.join(broken) or 'none'}"
                )
                page.close()


PARTS = {"first": first, "many": many, "axe": axe}


def main(*names: str) -> None:
    """Print the figures of *names*, or all."""
    with launched() as browser:
        for name in names or PARTS:
            PARTS[name](browser)


if __name__ == "__main__":
    main(*sys.argv[1:])
