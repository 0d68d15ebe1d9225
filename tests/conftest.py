"""Make tests/tools importable as ``tools``, and keep state out of the home directory.

The folder above must never get on the path: there ``machine``, ``runtime`` and ``adapters`` would
be top-level packages.
"""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# A fresh clone has no tables of Hypothesis yet, and a busy machine is slow: neither is a fault of
# a test. In CI the examples are the same each time; elsewhere new ones are tried.
_COMMON = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("local", _COMMON)
settings.register_profile("ci", _COMMON, derandomize=True, database=None, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") == "true" else "local")

if "SWAPCHART_STATE_DIR" not in os.environ:
    os.environ["SWAPCHART_STATE_DIR"] = tempfile.mkdtemp(prefix="swapchart-state-")
    atexit.register(shutil.rmtree, os.environ["SWAPCHART_STATE_DIR"], ignore_errors=True)

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture
def anyio_backend() -> str:
    """Event loop of asynchronous tests, unless a folder or a module has its own."""
    return "asyncio"
