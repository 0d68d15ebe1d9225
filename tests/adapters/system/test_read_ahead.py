"""Files that are read ahead are in the page cache afterwards, up to a number of bytes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from tools.net import wait_until
from tools.page_cache import drop, resident

from swapchart.adapters.system.read_ahead import read_ahead

MIB = 1 << 20


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file of 8 MiB that is on the disk only."""
    path = tmp_path / "model.gguf"
    path.write_bytes(os.urandom(8 * MIB))
    drop(str(path))
    if resident(str(path)) > 0.1:
        pytest.skip("NOT TESTED: this file system keeps files in memory")
    return path


def test_read_ahead_of_a_file_fills_the_page_cache(file: Path) -> None:
    """All of it is asked for and is there soon; what cannot be read is skipped."""
    missing, folder = file.with_name("missing"), file.parent

    assert read_ahead([missing, folder, file], 1 << 40, lambda: True) >= 8 * MIB
    wait_until(lambda: resident(str(file)) == 1.0)


def test_read_ahead_stops_at_its_limit(file: Path) -> None:
    """No more is asked for than free memory allows, and nothing that is not wanted any more."""
    assert read_ahead([file], 2 * MIB, lambda: True) == 2 * MIB
    assert read_ahead([file, file], 0, lambda: True) == 0
    turns = iter([True, True, False])
    assert read_ahead([file], 1 << 40, lambda: next(turns)) == 2 * (128 << 10)
    assert resident(str(file)) < 0.6
