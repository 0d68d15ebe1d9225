"""The system's Chromium for tests; its own is never downloaded."""

from __future__ import annotations

import os
import shutil

import pytest

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
