"""Pictures of the web UI: ``./dev python tests/tools/ui_pictures.py FOLDER [PAGE...]``.

Serves demo models, sends requests that swap them, and takes a picture of each page on a wide and on
a narrow screen, in light; of the first page also in dark.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).parents[1]))

from tools.browser import launched
from tools.net import port_block
from tools.swapchart_process import SwapchartProcess, demo_model

if TYPE_CHECKING:
    from playwright.sync_api import Browser

#: Page -> (address below /ui/, selector of an element that shows that it is complete).
PAGES = {
    "home": ("", "main h1"),
    "models": ("models", ".model"),
    "model": ("models?model=qwen3-8b", ".state.active"),
    "requests": ("requests", "tr.done"),
    "playground": ("playground?model=qwen3-8b", "#prompt"),
    "logs": ("logs", "#upstream-log .lines"),
    "system": ("system", ".plot canvas"),
    "configuration": ("configuration", "#files li"),
    "connect": ("connect", "#snippet-curl"),
}
SCREENS = {"wide": (1180, 760), "narrow": (390, 800)}


def main(folder: str, *names: str) -> None:
    """Write the pictures of all pages, or of those named."""
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    models = {
        "qwen3-8b": demo_model("qwen", rate=60, memory="300MiB", ttl=600, description="Chat"),
        "gemma-3-12b": demo_model("gemma", rate=60, memory="400MiB", ttl=600, description="Chat"),
        "bge-m3": demo_model("bge", memory="100MiB", description="Embeddings"),
        "whisper-large": demo_model("whisper", "--fail-load", memory="200MiB"),
    }
    config = {
        "models": models, "captureBuffer": 5,
        "memory": {"pools": {"RAM": {"limit": "500MiB"}}},
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as cwd, launched() as browser:
        proxy = SwapchartProcess({"startPort": port_block(), **config}, cwd=Path(cwd))
        try:
            proxy.wait_listening()
            _use(proxy)
            for name in names or PAGES:
                for screen in SCREENS:
                    _take(browser, proxy.port, name, target, screen, "light")
            if not names or "home" in names:
                _take(browser, proxy.port, "home", target, "wide", "dark")
        finally:
            proxy.stop()
            proxy.close()


def _use(proxy: SwapchartProcess) -> None:
    """Send requests that swap the models, and one to a model that fails."""
    for name in ("qwen3-8b", "gemma-3-12b", "bge-m3", "whisper-large", "qwen3-8b", "qwen3-8b"):
        proxy.chat(name, 40)


def _take(browser: Browser, port: int, name: str, folder: Path, screen: str, scheme: str) -> None:
    width, height = SCREENS[screen]
    context = browser.new_context(
        viewport={"width": width, "height": height},
        color_scheme="dark" if scheme == "dark" else "light",
    )
    page = context.new_page()
    path, selector = PAGES[name]
    page.goto(f"http://127.0.0.1:{port}/ui/{path}")
    page.locator(selector).first.wait_for()
    page.wait_for_timeout(700)  # charts and logs are drawn
    suffix = "" if scheme == "light" else f"-{scheme}"
    page.screenshot(path=folder / f"ui-{name}-{screen}{suffix}.png")
    context.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
