"""Prometheus and its promtool, of Debian's package `prometheus`."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest


def _program(name: str) -> str:
    """Return where *name* is. Without it a test is skipped, loudly, but in CI it fails."""
    found = shutil.which(name)
    if found is None:
        why = f"NOT TESTED: no {name}; on Debian: apt-get install prometheus"
        assert not os.environ.get("CI"), why
        pytest.skip(why)
    return found


def check_metrics(page: str) -> list[str]:
    """Return the complaints of ``promtool check metrics`` about *page*."""
    done = subprocess.run(
        [_program("promtool"), "check", "metrics"],
        input=page, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    complaints = [*done.stdout.splitlines(), *done.stderr.splitlines()]
    assert bool(complaints) == (done.returncode != 0), (done.returncode, complaints)
    return complaints


def check(kind: str, path: Path) -> str:
    """Run ``promtool check KIND PATH``, such as config or rules, and return its output."""
    done = subprocess.run(
        [_program("promtool"), "check", kind, str(path)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def server() -> str:
    """Return where the server's program is."""
    return _program("prometheus")
