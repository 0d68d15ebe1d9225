"""The check of an installation without extras, tests/bare_check.py, which .ci/run runs as well."""

from __future__ import annotations

from pathlib import Path

import bare_check
import pytest

from swapchart.adapters.cli.main import build_parser


@pytest.mark.slow
@pytest.mark.parametrize(
    "words", [("config", "check"), ("load", "x"), ("chart", "schema"), ("doctor",)]
)
def test_command_without_extras_works_or_names_the_extra(
    words: tuple[str, ...], tmp_path: Path
) -> None:
    """CI checks all commands; these are one of each kind."""
    assert words in bare_check.leaves(build_parser())
    assert bare_check.problem(words, str(tmp_path)) is None


def test_check_of_commands_finds_a_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A package that no extra installs, and that is missing, is a problem of the command."""
    monkeypatch.setattr(bare_check, "EXTRAS", {"yaml": "none"})

    assert "No module named 'yaml'" in (
        bare_check.problem(("chart", "export", "--format", "yaml"), str(tmp_path)) or ""
    )
