"""The system's Chromium for tests, and waits for what its pages show.

A Chromium is never downloaded.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from .net import LONG_S
from .swapchart_process import SwapchartProcess

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

NAMES = ("chromium", "chromium-browser", "google-chrome")


def chromium_path() -> str:
    """Return where the system's Chromium is. Without one a test is skipped, but in CI it fails."""
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        why = "no Chromium for the tests in a browser: on Debian, apt-get install chromium"
        if os.environ.get("CI") == "true":
            pytest.fail(why, pytrace=False)
        pytest.skip(why)
    return path


@contextmanager
def launched() -> Iterator[Browser]:
    """Run the system's Chromium; see `chromium_path`."""
    path = chromium_path()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # Its sandbox needs rights that containers and root do not have; it sees our pages only.
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@contextmanager
def opened(
    browser: Browser,
    proxy: SwapchartProcess,
    target: str = "/ui/",
    *,
    may_say: str = "",
    **given: Any,
) -> Iterator[Page]:
    """Open *target*; whatever the console then says is trouble, but what *may_say* matches.

    Violations of the policy of contents are errors on the console.
    """
    context = browser.new_context(base_url=f"http://127.0.0.1:{proxy.port}", **given)
    context.set_default_timeout(LONG_S * 1000)
    said: list[str] = []
    try:
        page = context.new_page()
        page.on("console", lambda message: said.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: said.append(f"uncaught: {error}"))
        page.goto(target)
        yield page
        assert page.locator("body").get_attribute("data-pwned") is None
    finally:
        context.close()
    trouble = [text for text in said if not (may_say and re.search(may_say, text))]
    assert trouble == []


def expect_text(page: Page, selector: str | Locator, pattern: str) -> None:
    """Wait until the first element that *selector* finds has a text that *pattern* matches."""
    from playwright.sync_api import expect

    wanted = re.compile(pattern, re.DOTALL)
    found = page.locator(selector) if isinstance(selector, str) else selector
    expect(found.first).to_have_text(wanted, timeout=LONG_S * 1000)


def wait_for(page: Page, predicate: Callable[[], bool], what: str) -> None:
    """Wait until *predicate* holds, while the browser's events keep coming in.

    Raises:
        TimeoutError: It does not hold within LONG_S seconds.
    """
    deadline = time.monotonic() + LONG_S
    while not predicate():
        if time.monotonic() > deadline:
            raise TimeoutError(what)
        page.wait_for_timeout(20)


#: WCAG's contrast of the first visible element that a selector finds, to what is behind it.
CONTRAST = """selector => {
  window.luminance = (colour) => {
    const [r, g, b] = colour.match(/[\\d.]+/g).map((part) => part / 255)
      .map((part) => part <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const element = [...document.querySelectorAll(selector)].find((item) => item.offsetWidth);
  let behind = element;
  while (/, 0\\)$|transparent/.test(getComputedStyle(behind).backgroundColor)) {
    behind = behind.parentElement;
  }
  const both = [getComputedStyle(element).color, getComputedStyle(behind).backgroundColor];
  const [low, high] = both.map(luminance).sort((a, b) => a - b);
  return (high + 0.05) / (low + 0.05);
}"""
