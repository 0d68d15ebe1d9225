"""Loads texts as configuration files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from swapchart.adapters.config import Config, Problem, check_config, load_config


def _write(folder: Path, texts: tuple[str, ...]) -> list[Path]:
    paths = []
    for number, text in enumerate(texts):
        path = folder / f"{number}.yaml"
        path.write_text(text, encoding="utf-8")
        paths.append(path)
    return paths


@pytest.fixture
def load(tmp_path: Path) -> Callable[..., Config]:
    """Return a function: texts of files, and env as keyword -> the configuration."""

    def loaded(*texts: str, **env: str) -> Config:
        return load_config(_write(tmp_path, texts), env=env)

    return loaded


@pytest.fixture
def check(tmp_path: Path) -> Callable[..., list[Problem]]:
    """Return a function: texts of files, and env as keyword -> all problems."""

    def checked(*texts: str, **env: str) -> list[Problem]:
        return check_config(_write(tmp_path, texts), env=env)

    return checked
