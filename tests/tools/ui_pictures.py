"""Pictures of the web UI: ``./dev python tests/tools/ui_pictures.py docs/ui [PAGE...]``.

Serves demo models for a minute, sends requests that swap them, and takes a picture of each page on
a wide and on a narrow screen, in light; of the first page also in dark.
"""

from __future__ import annotations

import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))

from tools.browser import launched
from tools.net import port_block
from tools.small_png import small_png
from tools.swapchart_process import CHAT, SwapchartProcess, demo_model

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page


class Shown(NamedTuple):
    """A page.

    Attributes:
        path: Address below /ui/.
        selector: Finds an element that shows that the page is complete.
        press: Selector of a button that is pressed before.
        at: Selector of an element that the picture begins with; empty for the whole page.
        height: Height of the picture on a wide screen; pixels.
    """

    path: str
    selector: str
    press: str = ""
    at: str = ""
    height: int = 760


PAGES = {
    "timeline": Shown("", "#timeline-swaps tbody tr", press=".spans button >> nth=0", height=900),
    "models": Shown("models", ".model", height=640),
    "model": Shown("models?model=qwen3-8b", ".state.active", height=900),
    "model-starts": Shown("models?model=qwen3-8b", "#history .hook-output", at="#kv", height=1000),
    "requests": Shown("requests", "tr.done"),
    "playground": Shown("playground?model=qwen3-8b", ".turn.assistant .timing", height=620),
    "logs": Shown("logs", "#upstream-log .lines", height=620),
    "system": Shown("system", ".plot canvas"),
    "configuration": Shown("configuration", "#files li", height=480),
    "connect": Shown("connect", "#snippet-curl"),
}
SCREENS = {"wide": 1180, "narrow": 390}
_NARROW_HEIGHT = 800

_SPEED = ("--prefill-tokens-per-second", "400")
STORY = "Tell me about the tree and the river, and why they wait for a red stone. " * 12
#: Pauses before requests in seconds, their models, and what they are about.
REQUESTS = (
    (0.0, "qwen3-8b", "Trees"), (4.0, "qwen3-8b", "Rivers"), (3.0, "gemma-3-12b", "Stones"),
    (0.5, "bge-m3", "Words"), (6.0, "qwen3-8b", "Trees"), (2.0, "whisper-large", "Sound"),
    (4.0, "gemma-3-12b", "Stones"), (2.0, "qwen3-8b", "Rivers"), (0.5, "bge-m3", "Words"),
    (5.0, "gemma-3-12b", "Stones"), (4.0, "qwen3-8b", "Trees"), (1.0, "qwen3-8b", "Night"),
)  # fmt: skip


def models(folder: Path) -> dict[str, Any]:
    """Return models of which two exclude each other, one keeps conversations and one fails."""
    slots, weights = folder / "slots", folder / "qwen3-8b.gguf"
    slots.mkdir()
    weights.write_bytes(b"weights")
    keeps = demo_model(
        str(weights), "--alias", "qwen", "--parallel", "2", "--slot-save-path", str(slots),
        *_SPEED, "--load-seconds", "2", rate=30,
        kv={"library": "20GiB", "minTokens": 64}, ttl=600, memory="300MiB",
        description="Chat, with a library of conversations",
        beforeStart={"run": "echo 'cleared 2 GiB of the page cache'", "shell": True},
    )  # fmt: skip
    return {
        "qwen3-8b": keeps,
        "gemma-3-12b": demo_model(
            "gemma",
            *_SPEED,
            "--load-seconds",
            "3",
            rate=20,
            memory="400MiB",
            ttl=600,
            description="Chat",
        ),
        "bge-m3": demo_model(
            "bge",
            *_SPEED,
            "--load-seconds",
            "1",
            rate=40,
            memory="100MiB",
            description="Embeddings",
        ),
        "whisper-large": demo_model("whisper", "--fail-load", memory="200MiB"),
        "flux-1-dev": demo_model("flux", memory="450MiB", description="Images"),
    }


def main(folder: str, *names: str) -> None:
    """Write the pictures of all pages, or of those named."""
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as place, launched() as browser:
        config = {
            "models": models(Path(place)), "captureBuffer": 5, "performance": {"every": "5s"},
            "memory": {"pools": {"RAM": {"limit": "500MiB"}}},
        }  # fmt: skip
        proxy = SwapchartProcess({"startPort": port_block(), **config}, cwd=Path(place))
        try:
            proxy.wait_listening()
            _use(proxy)
            for name in names or PAGES:
                for screen in SCREENS:
                    _take(browser, proxy.port, name, target, screen, "light")
                if name == "timeline":
                    _take(browser, proxy.port, name, target, "wide", "dark")
        finally:
            with suppress(AssertionError):  # the failing model is trouble on purpose
                proxy.stop()
            proxy.close()


def _use(proxy: SwapchartProcess) -> None:
    """Send requests that swap the models, and one to a model that fails."""

    def ask(model: str, subject: str) -> None:
        messages = [{"role": "user", "content": f"{subject}: {STORY}"}]
        proxy.call(
            "POST",
            CHAT,
            value={"model": model, "messages": messages, "max_tokens": 60},
            timeout_s=60,
        )

    with ThreadPoolExecutor(len(REQUESTS)) as pool:
        for pause, model, subject in REQUESTS:
            time.sleep(pause)
            pool.submit(ask, model, subject)


def _take(browser: Browser, port: int, name: str, folder: Path, screen: str, scheme: str) -> None:
    shown, width = PAGES[name], SCREENS[screen]
    height = shown.height if screen == "wide" else _NARROW_HEIGHT
    context = browser.new_context(
        viewport={"width": width, "height": height},
        color_scheme="dark" if scheme == "dark" else "light",
    )
    page = context.new_page()
    page.goto(f"http://127.0.0.1:{port}/ui/{shown.path}")
    if shown.press:
        page.locator(shown.press).click()
    if name == "playground":
        _chat(page)
    page.locator(shown.selector).first.wait_for()
    if shown.at:
        page.locator(shown.at).evaluate("item => window.scrollTo(0, item.offsetTop - 60)")
    page.wait_for_timeout(1200)  # charts and logs are drawn
    suffix = "" if scheme == "light" else f"-{scheme}"
    path = folder / f"{name}-{screen}{suffix}.png"
    data = page.screenshot()
    path.write_bytes(small_png(context.new_page(), data))
    context.close()


def _chat(page: Page) -> None:
    page.locator("#prompt").fill("Why do models have to be swapped?")
    page.keyboard.press("Enter")


if __name__ == "__main__":
    main(*sys.argv[1:])
