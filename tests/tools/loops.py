"""Event loops of tests: the standard library's, and uvloop's where it is installed."""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import Callable

import pytest

NewLoop = Callable[[], asyncio.AbstractEventLoop]


def needs(module: str) -> pytest.MarkDecorator:
    """Return a mark that skips a test where *module* is not installed."""
    is_missing = importlib.util.find_spec(module) is None
    return pytest.mark.skipif(is_missing, reason=f"{module} is not installed")


def new_loop(name: str) -> NewLoop:
    """Return what makes a loop named ``asyncio`` or ``uvloop``; skips the test without uvloop."""
    if name == "asyncio":
        return asyncio.new_event_loop
    found: NewLoop = pytest.importorskip("uvloop").new_event_loop
    return found


def fastest_loop() -> NewLoop:
    """Return what makes the loop that ``swapchart serve`` takes: uvloop's if it is installed."""
    return new_loop("asyncio" if importlib.util.find_spec("uvloop") is None else "uvloop")


def has_uvloop(where: str) -> bool:
    """Return True if a place of ``h1_server`` runs on uvloop."""
    return "asyncio" not in where and importlib.util.find_spec("uvloop") is not None
