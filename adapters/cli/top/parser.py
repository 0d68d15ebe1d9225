"""Options of `swapchart top`."""

from __future__ import annotations

import argparse

from ..command_parser import CommandParser
from ..remote.parsers import add_proxy

_LEAST_S, _MOST_S = 0.1, 3600.0


def add_top(parser: CommandParser) -> None:
    """Add the options of `top`."""
    parser.add_argument(
        "--interval", type=_interval, default=1.0, metavar="SECONDS",
        help="time between two looks at the proxy; default: %(default)s",
    )  # fmt: skip
    parser.add_argument(
        "--once", action="store_true", help="print one frame, as without a terminal"
    )
    add_proxy(parser)
    parser.examples(
        "swapchart top  # Up/Down or j/k select, l loads, u unloads, q ends it",
        "swapchart top --interval 5",
        "swapchart top --once",
    )


def _interval(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not _LEAST_S <= value <= _MOST_S:
        raise argparse.ArgumentTypeError(
            f"expected seconds from {_LEAST_S:g} to {_MOST_S:g}, got {text!r}"
        )
    return value
