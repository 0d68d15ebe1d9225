"""The check of CI that diagrams/ is up to date: exact, but for the last digits of a drawing."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from tools.stale_diagrams import stale_diagrams

ROOT = Path(__file__).parents[1]


@pytest.fixture
def drawn(tmp_path: Path) -> Path:
    return Path(shutil.copytree(ROOT / "diagrams", tmp_path / "drawn"))


def change(path: Path, pattern: str, to: str) -> None:
    text = path.read_text()
    changed, count = re.subn(pattern, to, text, count=1)
    assert count == 1
    assert changed != text
    path.write_text(changed)


def test_coordinates_that_differ_a_little_are_the_same_drawing(drawn: Path) -> None:
    text = (drawn / "lifecycle.svg").read_text()
    found = re.search(r'<path d="M(\d+)', text)
    assert found
    change(drawn / "lifecycle.svg", r'<path d="M\d+', f'<path d="M{int(found[1]) + 1}')
    assert stale_diagrams(ROOT / "diagrams", drawn) == []
    change(drawn / "lifecycle.svg", r'<path d="M\d+', f'<path d="M{int(found[1]) + 40}')
    assert stale_diagrams(ROOT / "diagrams", drawn) == ["lifecycle.svg"]


@pytest.mark.parametrize(
    ("name", "pattern", "to"),
    [
        ("lifecycle.svg", "stopping", "stopped"),
        ("overview.svg", r'" stroke="#1f2933"', '" stroke="#1f2934"'),
        ("lifecycle.svg", r"<path[^>]*>", ""),
        ("lifecycle.yaml", r"\d", "12"),
        ("lifecycle.mmd", "$", "\n"),
    ],
)
def test_any_other_difference_is_stale(drawn: Path, name: str, pattern: str, to: str) -> None:
    change(drawn / name, pattern, to)
    assert stale_diagrams(ROOT / "diagrams", drawn) == [name]


def test_missing_and_additional_files_are_stale(drawn: Path) -> None:
    (drawn / "alive.svg").rename(drawn / "more.svg")
    assert stale_diagrams(ROOT / "diagrams", drawn) == ["alive.svg", "more.svg"]
