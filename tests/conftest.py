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

if "SWAPCHART_STATE_DIR" not in os.environ:
    os.environ["SWAPCHART_STATE_DIR"] = tempfile.mkdtemp(prefix="swapchart-state-")
    atexit.register(shutil.rmtree, os.environ["SWAPCHART_STATE_DIR"], ignore_errors=True)

sys.path.insert(0, str(Path(__file__).parent))
