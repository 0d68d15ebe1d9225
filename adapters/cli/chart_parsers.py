"""Options of the commands for charts."""

from __future__ import annotations

import argparse
from pathlib import Path

from .command_parser import CommandParser
from .remote.parsers import add_key
from .view_options import add_view_options

#: Formats of `chart export`; svg and png need Graphviz.
CHART_FORMATS = (
    "yaml", "native", "json", "scxml", "xstate", "mermaid", "plantuml", "dot", "table", "svg", "png"
)  # fmt: skip


def add_chart(parser: CommandParser) -> None:
    """Add the subcommands of `chart`."""
    commands = parser.add_subparsers(dest="what", required=True, metavar="WHAT")
    export = commands.add_parser("export", help="write the chart in one of several formats")
    export.add_argument("--format", required=True, choices=CHART_FORMATS)
    export.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="default: standard output"
    )
    export.add_argument(
        "--datamodel", choices=("python", "ecmascript"), default="python",
        help="language of expressions in SCXML: python for python-statemachine (default), "
        "ecmascript for SCION and others",
    )  # fmt: skip
    export.add_argument(
        "--timer", action="append", default=[], metavar="NAME=DURATION",
        help="duration of a timer in SCXML and XState, such as escalation=2d",
    )  # fmt: skip
    export.add_argument(
        "--live", metavar="URL", help="highlight the current state of --model in this proxy"
    )
    export.add_argument(
        "--config", type=Path, metavar="FILE", help="fill in timers and hooks of --model"
    )
    export.add_argument("--model", help="model for --live and --config")
    add_key(export)
    export.add_argument(
        "--split", type=Path, metavar="DIR",
        help="write svg or png into DIR: an overview, and the inside of each composite state",
    )  # fmt: skip
    _add_chart_choice(export)
    add_view_options(export)
    export.set_defaults(run="chart-export")
    _add_chart_checks(commands)
    diagrams = commands.add_parser(
        "diagrams", help="write all diagrams of a chart into a folder, or into Markdown files"
    )
    diagrams.add_argument("--output", type=Path, default=Path("diagrams"), metavar="DIR")
    diagrams.add_argument(
        "--embed", type=Path, nargs="+", metavar="FILE",
        help="write what the markers `<!-- swapchart:CHART -->` of Markdown files ask for",
    )  # fmt: skip
    diagrams.add_argument(
        "--check", action="store_true", help="write nothing; exit 1 if a file is stale"
    )
    _add_chart_choice(diagrams)
    add_view_options(diagrams)
    diagrams.set_defaults(run="chart-diagrams")
    parser.examples(
        "swapchart chart check --chart order.yaml",
        "swapchart chart export --format svg -o lifecycle.svg",
    )


def _add_chart_checks(commands: argparse._SubParsersAction[CommandParser]) -> None:
    check = commands.add_parser(
        "check", help="check by exhaustive search that a chart keeps its promises; exit 1 if not"
    )
    _add_chart_choice(check)
    form = check.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print the report as JSON")
    form.add_argument(
        "--sarif", action="store_true", help="print the report as SARIF 2.1.0, for code review"
    )
    check.add_argument("--strict", action="store_true", help="exit 1 for warnings too")
    check.set_defaults(run="chart-check")
    schema = commands.add_parser("schema", help="print the JSON Schema of chart documents")
    schema.set_defaults(run="chart-schema")
    types = commands.add_parser(
        "types", help="write the names of a chart as Python types, for type checkers"
    )
    types.add_argument("chart", metavar="FILE|MODULE:CLASS")
    types.add_argument("-o", "--output", type=Path, metavar="FILE", help="default: standard output")
    types.set_defaults(run="chart-types")


def _add_chart_choice(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--chart", metavar="FILE|MODULE:CLASS",
        help="chart document, SCXML, XState JSON, or python-statemachine file or class; "
        "default: the shipped chart",
    )  # fmt: skip
    parser.add_argument(
        "--catalog", type=Path, metavar="FILE",
        help="data, events, guards, actions and promises of a class or a python-statemachine file",
    )  # fmt: skip
    parser.add_argument("--overlay", type=Path, metavar="FILE", help="changes to the chart")
