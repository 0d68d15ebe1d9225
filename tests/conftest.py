"""Make tests/tools importable as ``tools``, and keep state out of the home directory.

The folder above must never get on the path: there ``machine``, ``runtime`` and ``adapters`` would
be top-level packages.
"""

from __future__ import annotations

import atexit
import os
import re
import shutil
import signal
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

# Each process of pytest-xdist has its own, not that of the process that started it.
if "SWAPCHART_STATE_DIR" not in os.environ or "PYTEST_XDIST_WORKER" in os.environ:
    os.environ["SWAPCHART_STATE_DIR"] = tempfile.mkdtemp(prefix="swapchart-state-")
    atexit.register(shutil.rmtree, os.environ["SWAPCHART_STATE_DIR"], ignore_errors=True)

# A shell without job control starts background commands with SIGINT ignored, which programs that
# tests start would inherit; a handler of Python's becomes the default in them.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

_HERE = Path(__file__).parent
sys.path.insert(0, str(_HERE))


@pytest.fixture
def anyio_backend() -> str:
    """Event loop of asynchronous tests, unless a folder or a module has its own."""
    return "asyncio"


#: Files whose tests bound time or memory so closely that CI lets nothing else run beside them.
MEASURING = (
    "adapters/config/test_growth.py",
    "adapters/config/test_hostile.py",
    "adapters/http1/test_client_stream.py",
    "adapters/http1/test_server_state.py",
    "adapters/http1/test_server_timeouts.py",
    "adapters/http1/test_stock.py",
    "adapters/process/test_launcher.py",
    "adapters/proxy/test_access.py",
    "adapters/proxy/test_activity.py",
    "adapters/proxy/test_event_loop.py",
    "adapters/proxy/test_json_edit.py",
    "faults/test_growth.py",
    "faults/test_memory.py",
    "faults/test_proxy_rows.py",
    "machine/test_bounds.py",
    "runtime/test_eviction.py",
    "simulation/test_many.py",
)


#: Files that take most of a minute or more: two processes of pytest-xdist begin with them.
LONG = (
    "llama/test_memory_llama.py",
    "faults/test_openapi.py",
    "adapters/proxy/test_websocket.py",
    "machine/test_checker.py",
    "machine/test_order_short.py",
    "machine/test_mutants.py",
    "e2e/test_root_path.py",
    "adapters/test_pictures.py",
    "machine/test_other_engines.py",
    "simulation/test_storm.py",
    "test_patterns.py",
)

_MEASURING = frozenset(_HERE / name for name in MEASURING)
_LONG = {_HERE / name: index for index, name in enumerate(LONG)}


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Read no other files if ``-m`` selects only what measures: reading all takes 20 s of CPU."""
    only_measuring = re.search(r"(?:^|\band )measures$", config.option.markexpr)
    is_test = collection_path.match("test_*.py")
    return True if only_measuring and is_test and collection_path not in _MEASURING else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of `MEASURING`; put files that take long first where xdist runs them.

    A file runs in one process, and a long one that begins last would leave the other core idle.
    Most files without real processes are over in seconds; they come last.
    """
    named = {*_MEASURING, *_LONG}
    assert all(path.is_file() for path in named), "MEASURING or LONG names a file that is not there"
    for item in items:
        if item.path in _MEASURING:
            item.add_marker(pytest.mark.measures)
    if "PYTEST_XDIST_WORKER" in os.environ:
        slow = {item.path for item in items if item.get_closest_marker("slow")}
        items.sort(key=lambda item: (_LONG.get(item.path, len(_LONG)), item.path not in slow))
