"""docs/chart.md: its tables are generated, and its examples are run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from tools.chart_reference import PAGE, written
from tools.documents import blocks, commands, fenced
from tools.shown import BY_TEST

from swapchart.adapters.cli import main
from swapchart.machine import ChartError, check, read

TEXT = PAGE.read_text("utf-8")
CHARTS = blocks(TEXT, "yaml")

BROKEN = """\
format: swapchart.chart/v1
data: {amount: {values: [0, 50]}}
events: {submit: {origin: users}}
chart:
  states:
    draft:
      initial: true
      transitions: [{event: submit, target: wating}]
    waiting:
      transitions:
        - {event: submit, cond: m == 1}
"""
FORGETFUL = """\
format: swapchart.chart/v1
name: Order
events: {approve: {}, hold: {}, resume: {}}
chart:
  states:
    draft: {initial: true, ignores: resume, transitions: [{event: hold, target: held}]}
    held: {ignores: hold, transitions: [{event: resume, target: waiting}]}
    waiting: {ignores: [hold, resume], transitions: [{event: approve, target: draft}]}
"""


def test_chart_page_has_the_tables_of_the_format() -> None:
    """`./dev python tests/tools/chart_reference.py` writes them."""
    assert written(TEXT) == TEXT


@pytest.mark.parametrize("text", CHARTS)
def test_chart_page_example_keeps_its_promises(text: str) -> None:
    """Each chart of the page is read, and a full check finds and warns of nothing."""
    report = check(read(text))

    assert report.findings == ()
    assert report.warnings == ()


def test_chart_page_kettle_without_guard_breaks_its_promise() -> None:
    """The page says which guard the promise needs, and that the way is shortest."""
    report = check(read(CHARTS[0].replace(", cond: cups > 0}", "}", 1)))

    (finding,) = report.findings
    assert finding.sentence == "an empty kettle is never heated"
    assert [move.event for move in finding.trace] == ["begin", "switch"]


@pytest.fixture
def order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with the order process of the page."""
    (tmp_path / "order.yaml").write_text(CHARTS[1])
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("command", commands(TEXT))
def test_chart_page_command_succeeds(
    command: str, order: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each command of the page works on its order process."""
    program, *arguments = command.partition(" > ")[0].split()
    assert program == "swapchart"

    assert main(arguments) == 0
    assert capsys.readouterr().out or (order / "order_types.py").exists()


def test_chart_page_program_runs_and_is_typed(order: Path) -> None:
    """The program reaches the state it waits for, and mypy --strict accepts it."""
    assert main(["chart", "types", "order.yaml", "-o", "order_types.py"]) == 0
    (order / "program.py").write_text(blocks(TEXT, "python")[0])

    done = subprocess.run(
        [sys.executable, "program.py"],
        cwd=order, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    typed = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--cache-dir", "cache", "program.py"],
        cwd=order, capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert done.stdout == "('closed',)\n", done.stderr
    assert typed.stdout.startswith("Success"), typed.stdout


def test_chart_page_shows_problems_as_they_are_printed() -> None:
    """The block of problems is what such a document gives."""
    with pytest.raises(ChartError) as caught:
        read(BROKEN, "order.yaml")

    shown = "".join(f"{problem}\n" for problem in caught.value.problems)
    assert shown == blocks(TEXT, "text")[0]


def test_chart_page_shows_a_finding_as_it_is_printed() -> None:
    """The block of a finding is what such a chart gives."""
    report = check(read(FORGETFUL))

    (finding,) = report.findings
    assert f"{finding}\n" == blocks(TEXT, "text")[1]


def test_chart_page_has_no_other_blocks() -> None:
    """Each kind of block has a test above."""
    assert {language for language, _ in fenced(TEXT)} == {"sh", "yaml", "text", "python"}
    assert sum("chart_page" in test for test in BY_TEST) == 5
