"""Parser of `swapchart service`."""

from __future__ import annotations

import argparse
from collections.abc import Callable


def add_service(
    parser: argparse.ArgumentParser, add_serve_options: Callable[[argparse._ActionsContainer], None]
) -> None:
    """Add the options of `service install`, among them those of `serve`."""
    commands = parser.add_subparsers(dest="what", required=True, metavar="WHAT")
    install = commands.add_parser(
        "install", help="write a systemd unit that runs the proxy; starts nothing"
    )
    owner = install.add_mutually_exclusive_group()
    owner.add_argument(
        "--user", action="store_true", help="write a unit of your own, without root"
    )  # fmt: skip
    owner.add_argument(
        "--run-as", metavar="NAME",
        help="user that runs the proxy and the models; default: the user who called sudo",
    )  # fmt: skip
    install.add_argument(
        "--print", action="store_true", dest="is_printed", help="print the unit, write nothing"
    )
    install.add_argument(
        "--keep-models",
        action="store_true",
        help="models outlive the proxy (`keepModels`), and systemd holds its listening socket",
    )
    install.add_argument("--force", action="store_true", help="overwrite a unit that exists")
    add_serve_options(install.add_argument_group("options of `serve`, which the unit gets"))
    install.set_defaults(run="service-install")
