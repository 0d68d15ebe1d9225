"""The time limit that every test has."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
HANGING = """
import threading

def test_that_hangs():
    threading.Event().wait()
"""


@pytest.mark.slow
def test_time_limit_on_a_hanging_test_ends_the_run_with_stacks(tmp_path: Path) -> None:
    """A test that never ends is named, with the stack where it stands, and the run fails."""
    path = tmp_path / "test_hanging.py"
    path.write_text(HANGING)
    argv = [sys.executable, "-m", "pytest", "-c", str(ROOT / "pyproject.toml"),
            "--rootdir", str(tmp_path), "-p", "no:cacheprovider",
            "-o", "faulthandler_timeout=1", str(path)]  # fmt: skip
    ended = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, timeout=60)

    assert ended.returncode == 1
    assert "Timeout (0:00:01)!" in ended.stderr
    assert "in test_that_hangs" in ended.stderr


def test_time_limit_of_this_run_is_set(pytestconfig: pytest.Config) -> None:
    """The limit is part of the configuration, so no command line can forget it."""
    assert 0 < float(pytestconfig.getini("faulthandler_timeout")) <= 600
    assert pytestconfig.getini("faulthandler_exit_on_timeout") is True
