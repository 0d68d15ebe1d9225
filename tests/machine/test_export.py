"""Documents in other formats, and back."""

from __future__ import annotations

import pytest
import yaml
from statemachine.io import load

from swapchart.machine import (
    FORMATS,
    ChartError,
    from_mapping,
    lifecycle,
    native_yaml,
    read,
    render,
    to_json,
    to_yaml,
)


@pytest.mark.parametrize("write", [to_yaml, to_json])
def test_export_of_the_document_reads_back(write: object) -> None:
    """YAML and JSON lose nothing of a document, and writing it again changes nothing."""
    assert callable(write)
    text = write(lifecycle())

    again = read(text)

    assert again == lifecycle()
    assert write(again) == text


def test_yaml_means_the_same_to_a_strict_yaml_1_1_reader() -> None:
    """``on`` is quoted, so that readers which take it for true still read our document."""
    plain = yaml.safe_load(to_yaml(lifecycle()))

    assert from_mapping(plain) == lifecycle()


def test_export_of_the_chart_is_the_native_dialect() -> None:
    """python-statemachine's own loader validates it against its own schema."""
    chart = load(native_yaml(lifecycle()), format="yaml", validate=True)

    assert {state.id for state in chart.states_map.values()} == {
        name for name, _, _ in lifecycle().states()
    }


def test_export_renders_each_format() -> None:
    """`render` knows every format it lists, and says so of one it does not know."""
    for name in FORMATS:
        assert render(lifecycle(), name, active=("alive", "ready"))

    with pytest.raises(ChartError, match=r"format: expected one of yaml, .*; got 'docx'"):
        render(lifecycle(), "docx")
    with pytest.raises(ChartError, match=r"svg needs Graphviz: see swapchart\.adapters\.pictures"):
        render(lifecycle(), "svg")
