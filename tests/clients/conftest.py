"""Clients of other projects and a real proxy."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from tools.fixtures import serve_module

__all__ = ["serve_module"]

_HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave large clients to ``./dev clients``: they take minutes, on each Python the same."""
    if os.environ.get("SWAPCHART_CLIENTS"):
        return
    for item in items:
        if item.path.is_relative_to(_HERE) and item.get_closest_marker("clients"):
            item.add_marker(pytest.mark.skip("NOT TESTED: only ./dev clients runs large clients"))
