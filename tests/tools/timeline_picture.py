"""Makes the picture of the timeline: ``./dev python tests/tools/timeline_picture.py``.

A real proxy serves demo models that take some seconds to load, with hooks, for a minute of
requests; then the system's Chromium takes the picture for the README.
"""

from __future__ import annotations

import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

TESTS = Path(__file__).parents[1]
sys.path.insert(0, str(TESTS))

from tools.browser import launched  # noqa: E402
from tools.swapchart_process import Proxies, SwapchartProcess, demo_model  # noqa: E402

PICTURE = TESTS.parent / "docs" / "timeline.png"
LARGEST_BYTES = 150_000
#: Pauses before requests in seconds, and the models that these are for.
REQUESTS = (
    (0.0, "qwen"), (4.0, "qwen"), (1.0, "qwen"), (1.5, "coder"), (0.3, "embedder"), (1.0, "coder"),
    (5.0, "coder"), (1.0, "qwen"), (0.5, "qwen"), (0.5, "embedder"), (6.0, "vision"), (2.0, "qwen"),
    (4.0, "coder"), (0.5, "coder"), (6.0, "qwen"), (1.0, "embedder"), (4.0, "qwen"), (1.0, "coder"),
    (2.0, "embedder"), (6.0, "qwen"), (5.0, "embedder"), (3.0, "coder"),
)  # fmt: skip


def serve(proxies: Proxies) -> SwapchartProcess:
    """Start a proxy with models of a few seconds each; one of them fails."""

    def slow(seconds: float) -> dict[str, object]:
        return {"beforeStart": [{"run": ["sleep", str(seconds)]}]}

    models = {
        "qwen": demo_model("qwen", "--load-seconds", "2", rate=9, **slow(0.8)),
        "coder": demo_model("coder", "--load-seconds", "3", rate=7, **slow(0.4)),
        "embedder": demo_model("embedder", "--load-seconds", "1", rate=12),
        "vision": {"cmd": "sh -c 'sleep 1.5; exit 3' ${PORT}"},
        "speech": demo_model("speech"),
    }
    groups = {
        "large": {"swap": True, "members": ["qwen", "coder", "vision", "speech"]},
        "small": {"swap": False, "exclusive": False, "persistent": True, "members": ["embedder"]},
    }
    return proxies.serve(models, config={"groups": groups, "performance": {"every": "5s"}})


def main() -> int:
    """Make the picture; return 1 if it is too large."""
    with tempfile.TemporaryDirectory() as folder, launched() as browser:
        proxies = Proxies(Path(folder))
        try:
            proxy = serve(proxies)
            with ThreadPoolExecutor(16) as pool:
                for pause, model in REQUESTS:
                    time.sleep(pause)
                    pool.submit(proxy.chat, model)
            page = browser.new_context(
                base_url=f"http://127.0.0.1:{proxy.port}",
                viewport={"width": 1120, "height": 520},
                color_scheme="light",
            ).new_page()
            page.goto("/ui/timeline")
            page.get_by_role("button", name="1 min", exact=True).click()
            page.locator("#timeline .lane-name", has_text="qwen").wait_for()
            page.wait_for_timeout(1500)
            page.screenshot(path=PICTURE)
        finally:
            with suppress(AssertionError):  # the failing model is trouble on purpose
                proxies.end()
            proxies.close()
    size = PICTURE.stat().st_size
    print(f"{PICTURE}: {size} bytes")
    return int(size > LARGEST_BYTES)


if __name__ == "__main__":
    sys.exit(main())
