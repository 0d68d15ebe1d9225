"""Command line parser. A command is imported when it runs, so that `--help` starts fast."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path

from ... import __version__
from ..system.extras import missing_package
from .defaults import DEFAULT_URL, api_key, proxy_url
from .output import _fail
from .service.parser import add_service
from .view_options import add_view_options

_EPILOG = "Run swapchart COMMAND --help for details."


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    parser = argparse.ArgumentParser(
        prog="swapchart",
        description="Swap between many local inference servers behind one endpoint.",
        epilog=_EPILOG,
    )
    parser.add_argument("--version", action="version", version=f"swapchart {__version__}")
    parser.add_argument(
        "-version", action="version", help="the same, as llama-swap prints it",
        version=f"version: {__version__} (unknown), built at unknown",
    )  # fmt: skip
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_init(
        commands.add_parser("init", help="write a configuration for the models of this machine")
    )
    _add_serve(commands.add_parser("serve", help="run the proxy"))
    add_service(
        commands.add_parser("service", help="write a systemd unit for the proxy"),
        _add_serve_options,
    )
    _add_config(commands.add_parser("config", help="check a configuration, print its schema"))
    _add_chart(commands.add_parser("chart", help="export, draw and check the lifecycle"))
    _add_history(commands.add_parser("history", help="show the transitions of a model"))
    _add_memory(commands.add_parser("memory", help="show memory pools and what models hold"))
    _add_plan(commands.add_parser("plan", help="show what a request for a model would cause"))
    _add_yield(commands.add_parser("yield", help="leave memory pools to other programs"))
    _add_kv(commands.add_parser("kv", help="list, verify or purge saved KV caches"))
    _add_demo(commands.add_parser("demo", help="run the proxy with two demo models"))
    server = commands.add_parser(
        "demo-server", help="run a small OpenAI-compatible server without a model",
        add_help=False,
    )  # fmt: skip
    server.set_defaults(run="demo-server")
    return parser


def _add_init(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "folders", nargs="*", type=Path, metavar="DIR",
        help="folder with GGUF files or directories of safetensors, at any depth",
    )  # fmt: skip
    parser.add_argument(
        "--ollama", action="store_true",
        help="add the models of Ollama's store: $OLLAMA_MODELS, or where it is installed",
    )  # fmt: skip
    parser.add_argument(
        "--vllm", action="append", default=[], metavar="MODEL",
        help="add a model for vLLM: an id of Hugging Face, or a directory; may be repeated",
    )  # fmt: skip
    parser.add_argument(
        "-o", "--output", type=Path, default=Path("config.yaml"), metavar="FILE",
        help="default: %(default)s",
    )  # fmt: skip
    parser.add_argument("--force", action="store_true", help="overwrite FILE")
    parser.set_defaults(run="init")


def _add_serve(parser: argparse.ArgumentParser) -> None:
    _add_serve_options(parser)
    parser.set_defaults(run="serve")


def _add_serve_options(parser: argparse._ActionsContainer) -> None:
    """Add the options of `serve`, which `config check` accepts too."""
    parser.add_argument(
        "--config", "-config", action="append", type=Path, default=[], metavar="FILE",
        help="configuration file; llama-swap's format is accepted; default: $SWAPCHART_CONFIG, "
        "config.yaml, or ~/.config/swapchart/config.yaml",
    )  # fmt: skip
    parser.add_argument("--config-dir", "-config-dir", type=Path, metavar="DIR")
    parser.add_argument(
        "--listen", "-listen", metavar="HOST:PORT",
        help="default: 127.0.0.1:8080; with a certificate 127.0.0.1:8443",
    )  # fmt: skip
    for kind in ("cert", "key"):
        parser.add_argument(
            f"--tls-{kind}-file", f"-tls-{kind}-file", type=Path, metavar="FILE",
            help="serve HTTPS; needs both options",
        )  # fmt: skip
    parser.add_argument(
        "--server",
        choices=("hypercorn", "uvicorn"),
        default="hypercorn",
        help="default: %(default)s",
    )
    parser.add_argument(
        "--stock", action="store_true",
        help="use the server's own HTTP/1.1 layer instead of swapchart's faster one",
    )  # fmt: skip
    parser.add_argument(
        "--watch-config", "-watch-config", type=_boolean, nargs="?", const=True, default=False,
        metavar="true|false",
        help="reload the configuration when one of its files changes",
    )  # fmt: skip
    parser.add_argument(
        "--lenient", action="store_true",
        help="refuse a model with an error, with a warning, and serve the others",
    )  # fmt: skip
    parser.add_argument(
        "--allow-unauthenticated", action="store_true",
        help="listen on other interfaces although no apiKeys are configured",
    )  # fmt: skip
    parser.add_argument(
        "--root-path", metavar="PATH", default="",
        help="path below which a reverse proxy serves swapchart, such as /llm",
    )  # fmt: skip
    parser.add_argument(
        "--state-dir", type=Path, metavar="DIR",
        help="directory of the journal; default: one per configuration in "
        "$SWAPCHART_STATE_DIR or ~/.local/state/swapchart",
    )  # fmt: skip


def _boolean(text: str) -> bool:
    """Return the value of a flag such as ``-watch-config=false``, in the forms of Go's flags."""
    if text in ("1", "t", "T", "true", "TRUE", "True"):
        return True
    if text in ("0", "f", "F", "false", "FALSE", "False"):
        return False
    raise argparse.ArgumentTypeError(f"expected true or false, got {text!r}")


def _add_proxy(parser: argparse.ArgumentParser) -> None:
    """Add the options of a command that asks a running proxy."""
    _add_url(parser)
    parser.add_argument("--json", action="store_true")


def _add_url(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--url", default=proxy_url(), help=f"default: $SWAPCHART_URL, or {DEFAULT_URL}"
    )
    _add_key(parser)


def _add_key(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--api-key", default=api_key(),
        help="API key, if the proxy needs one; default: $SWAPCHART_API_KEY",
    )  # fmt: skip


def _add_history(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model")
    _add_proxy(parser)
    parser.add_argument("--limit", type=int, default=50, help="default: %(default)s")
    parser.set_defaults(run="history")


def _add_memory(parser: argparse.ArgumentParser) -> None:
    _add_proxy(parser)
    parser.set_defaults(run="memory")


def _add_plan(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", nargs="?", help="model of a running proxy")
    _add_proxy(parser)
    parser.add_argument(
        "--with", dest="beside", metavar="A,B,C",
        help="whether these models fit together, by --config and what was learned; asks no proxy",
    )  # fmt: skip
    parser.add_argument("--config", action="append", type=Path, default=[], metavar="FILE")
    parser.add_argument("--config-dir", type=Path, metavar="DIR")
    parser.add_argument("--state-dir", type=Path, metavar="DIR", help="as for `serve`")
    parser.set_defaults(run="plan")


def _add_yield(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("pools", nargs="+", metavar="POOL")
    time = parser.add_mutually_exclusive_group()
    time.add_argument(
        "--for", dest="for_", metavar="TIME", help="such as 2h; default: until `--end`"
    )
    time.add_argument("--end", action="store_true", help="let models use the pools again")
    parser.add_argument(
        "--keep", default="0", metavar="SIZE",
        help="most that models hold of each pool meanwhile, such as 4GiB; default: nothing",
    )  # fmt: skip
    _add_proxy(parser)
    parser.set_defaults(run="yield")


def _add_kv(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(dest="what", required=True, metavar="WHAT")
    helps = {
        "list": "list the saved caches of each model",
        "verify": "read every file and compare its checksum; exit 1 if one is damaged",
        "purge": "delete saved caches, including those of removed models",
    }
    for name, text in helps.items():
        command = commands.add_parser(name, help=text)
        command.add_argument("models", nargs="*", metavar="MODEL", help="default: all")
        command.add_argument(
            "--config", "-config", action="append", type=Path, default=[], metavar="FILE"
        )
        command.add_argument("--config-dir", "-config-dir", type=Path, metavar="DIR")
        command.add_argument("--state-dir", type=Path, metavar="DIR", help="as for `serve`")
        if name == "list":
            command.add_argument("--json", action="store_true")
        command.set_defaults(run="kv")


def _add_config(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(dest="what", required=True, metavar="WHAT")
    check = commands.add_parser("check", help="print all problems; exit 1 if there is an error")
    check.add_argument("files", nargs="*", type=Path, metavar="FILE")
    check.add_argument("--url", help="running proxy whose notices of memory are printed too")
    check.add_argument("--api-key", help="API key, if the proxy needs one")
    _add_serve_options(check.add_argument_group("options of `serve`, which are checked too"))
    check.set_defaults(run="config-check")
    schema = commands.add_parser("schema", help="print the JSON Schema, for editors")
    schema.set_defaults(run="config-schema")
    plan = commands.add_parser("plan", help="show what a reload would change")
    plan.add_argument(
        "files", nargs="*", type=Path, metavar="FILE", help="OLD and NEW, without --url"
    )
    plan.add_argument("--url", help="running proxy to ask for the effect of its changed files")
    plan.set_defaults(run="config-plan")
    reload = commands.add_parser("reload", help="reload the configuration of a running proxy")
    _add_key(plan)
    _add_url(reload)
    reload.set_defaults(run="config-reload")
    for subcommand in (plan, reload):
        subcommand.add_argument("--json", action="store_true")


def _add_chart(parser: argparse.ArgumentParser) -> None:
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
    _add_key(export)
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


def _add_chart_checks(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
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


def _add_demo(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--listen", default="127.0.0.1:8080", metavar="HOST:PORT")
    parser.add_argument(
        "--load-seconds",
        type=float,
        default=1.0,
        help="time that a model takes to load; default %(default)s",
    )
    parser.set_defaults(run="demo")


#: Formats of `chart export`; svg and png need Graphviz.
CHART_FORMATS = (
    "yaml", "native", "json", "scxml", "xstate", "mermaid", "plantuml", "dot", "table", "svg", "png"
)  # fmt: skip


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
    parser = build_parser()
    if arguments[:1] and arguments[0].startswith("-") and arguments[0] not in _OWN_FLAGS:
        parser.error(
            f"expected a command before {arguments[0]}; the proxy runs with: "
            f"swapchart serve {shlex.join(arguments)}"
        )
    options = parser.parse_args(arguments)
    try:
        return _run(options)
    except ModuleNotFoundError as error:
        if (message := missing_package(error, "this command")) is None:
            raise
        return _fail(message)


def _run(options: argparse.Namespace) -> int:
    if options.run.startswith("chart-") and options.run not in _COMMANDS:
        from .chart import COMMANDS

        return COMMANDS[options.run](options)
    module, name = _COMMANDS[options.run]
    command: Command = getattr(import_module(f".{module}", __package__), name)
    return command(options)


Command = Callable[[argparse.Namespace], int]

_OWN_FLAGS = frozenset({"-h", "--help", "--version", "-version"})

#: Command -> module and function that run it; imported on demand.
_COMMANDS: Mapping[str, tuple[str, str]] = {
    "chart-diagrams": ("diagrams", "diagrams"),
    "init": ("init", "init"),
    "kv": ("kv", "run"),
    "serve": ("serve", "serve"),
    "service-install": ("service.install", "install"),
    "demo": ("demo", "demo"),
    "history": ("history", "history"),
    "memory": ("memory", "memory"),
    "plan": ("memory", "plan"),
    "yield": ("yielding", "leave"),
    "config-check": ("config", "check"),
    "config-schema": ("config", "schema"),
    "config-plan": ("config", "config_plan"),
    "config-reload": ("config", "config_reload"),
}
