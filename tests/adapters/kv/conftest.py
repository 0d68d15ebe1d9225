"""A model of two slots with a library, on demo servers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tools.kv import Kept, demo_command, keeping
from tools.kv_library import SETTINGS


@pytest.fixture
def command(tmp_path: Path) -> list[str]:
    (tmp_path / "model.bin").write_bytes(b"weights")
    return demo_command(tmp_path / "model.bin", slots=2)


@pytest.fixture
async def kept(tmp_path: Path, command: list[str]) -> AsyncIterator[Kept]:
    async with keeping(tmp_path / "kv", command, SETTINGS) as kept:
        yield kept
