"""Configurations in the documentation load without a problem."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from swapchart.adapters.config import check_config

DOCS = Path(__file__).parents[1] / "docs"
_BLOCK = re.compile(r"^```yaml\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_VARIABLE = re.compile(r"\$\{env\.(\w+)\}")


def blocks(page: str) -> list[str]:
    return _BLOCK.findall((DOCS / page).read_text())


@pytest.mark.parametrize("text", blocks("security.md"))
def test_docs_example_of_a_configuration_loads(text: str, tmp_path: Path) -> None:
    """Each YAML block of the page is a whole configuration without errors and warnings."""
    path = tmp_path / "config.yaml"
    path.write_text(text)
    variables = {name: f"value-of-{name.lower()}" for name in _VARIABLE.findall(text)}

    assert check_config([path], env=variables) == []


def test_docs_security_has_examples() -> None:
    """The page that refusals name is there, with its sections and examples."""
    text = (DOCS / "security.md").read_text()

    assert len(blocks("security.md")) >= 4
    assert {"\n## Host\n", "\n## Origins\n"} <= set(re.findall(r"\n## \w+\n", text))
