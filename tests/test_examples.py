"""The example configurations: each loads, says what it shows, and is linked by the pages."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]
from tools.documents import DOCUMENTS, ROOT
from yaml import safe_load

from swapchart.adapters.app.chart_setup import chart
from swapchart.adapters.config import check_config, config_schema, load_config

EXAMPLES = sorted((ROOT / "examples").glob("*.yaml"))
NAMES = [path.name for path in EXAMPLES]


@pytest.mark.parametrize("path", EXAMPLES, ids=NAMES)
def test_example_loads_without_errors_and_warnings(path: Path) -> None:
    """Variables of the environment are set; programs and files are those of the user."""
    text = path.read_text("utf-8")
    variables = {name: f"sk-{name.lower()}" for name in re.findall(r"\$\{env\.(\w+)\}", text)}

    assert check_config([path], env=variables) == []
    chart(load_config([path], env=variables))


@pytest.mark.parametrize("path", EXAMPLES, ids=NAMES)
def test_example_is_valid_by_the_schema(path: Path) -> None:
    """An editor underlines nothing."""
    document = safe_load(path.read_text("utf-8"))
    found = Draft202012Validator(config_schema()).iter_errors(document)

    assert [error.message for error in found] == []


@pytest.mark.parametrize("path", EXAMPLES, ids=NAMES)
def test_example_begins_with_what_it_shows_and_what_to_change(path: Path) -> None:
    """The first line is the schema for editors."""
    head, blank, _ = path.read_text("utf-8").partition("\n\n")
    lines = head.splitlines()

    assert blank
    assert lines[0] == "# yaml-language-server: $schema=swapchart.schema.json"
    assert all(line.startswith("#") for line in lines)
    assert [line.split()[1] for line in lines if re.match(r"# \w+: ", line)][-2:] == [
        "Shows:",
        "Change:",
    ]


def test_examples_are_linked_by_the_configuration_page() -> None:
    """Each file is in the table of docs/configuration.md, and README.md links the folder."""
    linked = re.findall(r"\]\(\.\./examples/([\w.-]+)\)", DOCUMENTS["docs/configuration.md"])

    assert sorted(linked) == NAMES
    assert "](examples)" in DOCUMENTS["README.md"]
