"""Texts of configurations, and what a test asks of them."""

from __future__ import annotations

from collections.abc import Callable

from swapchart.adapters.config import Config, Problem

Load = Callable[..., Config]
Check = Callable[..., list[Problem]]


def one_model(keys: str, command: str = "s ${PORT}") -> str:
    """Return a document with one model ``m``; *keys* are further keys of it, one a line."""
    lines = "".join(f"    {line}\n" for line in keys.splitlines())
    return f"models:\n  m:\n    cmd: {command}\n{lines}"


def found(problems: list[Problem]) -> list[tuple[str, str]]:
    """Return path and message of each problem."""
    return [(problem.path, problem.message) for problem in problems]
