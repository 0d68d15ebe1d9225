"""Commands that check a chart and tell what is wrong: for people, JSON and SARIF."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

from ... import __version__
from ...machine import Bounds, ChartError, Document, Report, SwapchartError, check
from ...machine.checking.report_formats import (
    Locate,
    problems_json,
    problems_sarif,
    report_json,
    report_sarif,
)
from ...machine.format.parse import read_placed
from .chart_source import read_file


def prove(options: argparse.Namespace, choose: Callable[[], Document]) -> int:
    """Explore a chart exhaustively; print each finding with a shortest path and its cure.

    Args:
        options: Of the command.
        choose: Returns the chart that the options select.
    """
    began = time.perf_counter()
    try:
        document, file, locate = _placed(options, choose)
        report = check(document, bounds=Bounds())
    except ChartError as error:
        return _refused(options, error)
    except (SwapchartError, OSError) as error:
        return fail(error)
    if options.json:
        print(json.dumps(report_json(document.name, report, file, locate), indent=2))
    elif options.sarif:
        print(json.dumps(report_sarif(report, file, locate, __version__), indent=2))
    else:
        _print(document, report, file, locate, time.perf_counter() - began)
    return 0 if report.is_ok and not (options.strict and report.warnings) else 1


def _placed(
    options: argparse.Namespace, choose: Callable[[], Document]
) -> tuple[Document, str, Locate]:
    """Return the chart, its file, and what finds its parts there.

    Parts of a merged chart have no line: they may come from the overlay.
    """
    document, name = choose(), options.chart
    if name is None or options.overlay is not None or not Path(name).is_file():
        return document, "", lambda path: None
    try:
        _, places = read_placed(read_file(Path(name)), name)
    except ChartError:  # a chart of another tool
        return document, name, lambda path: None
    return document, name, lambda path: places.position(path) if path else None


def _refused(options: argparse.Namespace, error: ChartError) -> int:
    if options.json:
        print(json.dumps(problems_json(error), indent=2))
    elif options.sarif:
        print(json.dumps(problems_sarif(error, __version__), indent=2))
    else:
        return fail(error)
    return 1


def fail(error: object) -> int:
    """Print *error*, each of its problems on a line of its own; return the exit status."""
    problems = getattr(error, "problems", ()) or (error,)
    for problem in problems:
        print(f"swapchart: {problem}", file=sys.stderr)
    return 1


def _print(document: Document, report: Report, file: str, locate: Locate, seconds: float) -> None:
    for label, findings in (("", report.findings), ("warning: ", report.warnings)):
        for finding in findings:
            at = locate(finding.path)
            place = f"{file}:{at[0]}:{at[1]}: " if at is not None and file else ""
            print(f"{place}{label}{finding}", end="\n\n")
    explored = f"; explored {', '.join(report.cut)}" if report.cut else ""
    verdict = "every promise is kept" if report.is_ok else _counted(report)
    print(
        f"{document.name}: {verdict}; {report.states} situations, {report.edges} steps, "
        f"{report.configurations} configurations, {len(report.runs)} sets of parameters, "
        f"{seconds:.1f} s{explored}"
    )


def _counted(report: Report) -> str:
    number = len(report.findings)
    return "1 broken promise" if number == 1 else f"{number} broken promises"
