"""Commands that check a chart and tell what is wrong: for people, JSON and SARIF."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from ... import __version__
from ...machine import Bounds, ChartError, Document, Report, SwapchartError, check
from ...machine.checking.checker import Explored, Parameters
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
        report = check(document, bounds=Bounds(), explore_all=explore_on_all_cores)
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


def explore_on_all_cores(
    explore: Callable[[Parameters], Explored], sets: Iterable[Parameters]
) -> Iterator[Explored]:
    """Yield the result of each set in order; after a second, a process for each core explores.

    Most charts take less. The processes are forked, so that they have the compiled chart; a program
    with threads is not forked.

    Raises:
        SwapchartError: A process was killed.
    """
    left = list(sets)
    end = time.monotonic() + _ALONE_S
    while left and time.monotonic() < end:
        yield explore(left.pop(0))
    count = min(len(os.sched_getaffinity(0)), len(left))
    if count < 2 or threading.active_count() > 1:
        yield from map(explore, left)
        return
    from concurrent.futures import BrokenExecutor, ProcessPoolExecutor
    from multiprocessing import get_context

    context = get_context("fork")
    try:
        with ProcessPoolExecutor(count, context, _begin, (explore,)) as pool:
            yield from pool.map(_explore, left)
    except BrokenExecutor as error:
        raise SwapchartError("a process of the check was killed; memory may be short") from error


_ALONE_S = 1.0
_explore_here: list[Callable[[Parameters], Explored]] = []  # of a forked process


def _begin(explore: Callable[[Parameters], Explored]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it without a traceback
    _explore_here.append(explore)


def _explore(values: Parameters) -> Explored:
    return _explore_here[0](values)


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
