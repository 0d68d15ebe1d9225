"""Code that is sent to machines where swapchart need not be installed."""

from __future__ import annotations

import ast
import importlib.util
from pathlib import Path

import pytest

from swapchart.adapters.memory.elsewhere import MODULES


@pytest.mark.parametrize("name", MODULES)
def test_elsewhere_modules_need_one_another_and_the_standard_library_only(name: str) -> None:
    """A module that is missing there would end each estimate with an exception."""
    spec = importlib.util.find_spec(name)
    assert spec is not None
    assert spec.origin is not None
    nodes = list(ast.walk(ast.parse(Path(spec.origin).read_text())))
    relative = (each for each in nodes if isinstance(each, ast.ImportFrom) and each.level)
    needed = {
        importlib.util.resolve_name("." * each.level + (each.module or ""), spec.parent or "")
        for each in relative
    }
    absolute = [
        alias.name for each in nodes if isinstance(each, ast.Import) for alias in each.names
    ]

    assert needed <= {*MODULES}
    assert not [each for each in absolute if each.startswith("swapchart")]
