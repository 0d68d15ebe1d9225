"""Make tests/tools importable as ``tools``; nothing else belongs here.

The folder above must never get on the path: there ``machine``, ``runtime`` and ``adapters`` would
be top-level packages.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
