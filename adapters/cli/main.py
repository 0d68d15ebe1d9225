"""The `swapchart` command: finds the module of a command, imports and runs it."""

from __future__ import annotations

import argparse
import gc
import os
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module

from ..system.extras import missing_package
from .defaults import EXIT_INTERRUPTED
from .output import _fail
from .parsers import build_parser

__all__ = ["build_parser", "main"]


def _open_standard_descriptors() -> None:
    """Open /dev/null in place of standard descriptors that are closed.

    Otherwise sockets and pipes get the numbers 0 to 2: printed text would be written to them, a
    child process would close them, and libuv would abort the process.
    """
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is this one
            os.set_inheritable(fd, True)
    sys.stdin = sys.stdin or open(0, closefd=False)  # noqa: SIM115
    sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    _open_standard_descriptors()
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments[:1] == ["demo-server"]:
        from ..demo.server import main as serve_demo

        return serve_demo(arguments[1:])
    parser = build_parser(arguments[0] if arguments else "")
    if not arguments:
        parser.print_help(sys.stderr)
        return 2
    if arguments[:1] and arguments[0].startswith("-") and arguments[0] not in _OWN_FLAGS:
        parser.error(
            f"expected a command before {arguments[0]}; the proxy runs with: "
            f"swapchart serve {shlex.join(arguments)}"
        )
    options = parser.parse_args(arguments)
    try:
        code = _run(options)
        sys.stdout.flush()
    except ModuleNotFoundError as error:
        if (message := missing_package(error, "this command")) is None:
            raise
        return _fail(message)
    except KeyboardInterrupt:  # the usual end of a command that follows something
        return EXIT_INTERRUPTED
    except BrokenPipeError:  # `swapchart list | head -1` has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # else the interpreter reports it at its end
        return 1
    return code


def _run(options: argparse.Namespace) -> int:
    if options.run.startswith("chart-") and options.run not in _COMMANDS:
        from .chart import COMMANDS

        return COMMANDS[options.run](options)
    if options.run == "config-plan" and not options.files:
        options.run = "config-plan-of-proxy"
    module, name = _COMMANDS[options.run]
    gc.disable()  # what is imported stays
    command: Command = getattr(import_module(f".{module}", __package__), name)
    if options.run != "serve":  # which enables it before the first request
        gc.enable()
    return command(options)


Command = Callable[[argparse.Namespace], int]

_OWN_FLAGS = frozenset({"-h", "--help", "--version", "-version"})

#: Command -> module and function that run it; imported on demand.
_COMMANDS: Mapping[str, tuple[str, str]] = {
    "chart-diagrams": ("diagrams", "diagrams"),
    "completion": ("completion", "completion"),
    "doctor": ("doctor", "doctor"),
    "init": ("init", "init"),
    "kv": ("kv", "run"),
    "run": ("run.command", "run"),
    "serve": ("serve", "serve"),
    "service-install": ("service.install", "install"),
    "demo": ("demo", "demo"),
    "history": ("remote.history", "history"),
    "memory": ("remote.memory", "memory"),
    "nodes": ("remote.nodes", "nodes"),
    "plan": ("remote.control", "plan"),
    "yield": ("remote.yielding", "leave"),
    "explain": ("remote.control", "explain"),
    "load": ("remote.control", "load"),
    "unload": ("remote.control", "unload"),
    "status": ("remote.status", "status"),
    "top": ("top.command", "top"),
    "ps": ("remote.status", "processes"),
    "list": ("remote.status", "models"),
    "queue": ("remote.status", "queue"),
    "chat": ("remote.chat", "chat"),
    "logs": ("remote.logs", "logs"),
    "config-check": ("config", "check"),
    "config-keys": ("keys", "keys"),
    "config-schema": ("config", "schema"),
    "config-plan": ("config", "plan"),
    "config-plan-of-proxy": ("remote.reloading", "plan"),
    "config-reload": ("remote.reloading", "reload"),
}
