"""Parser of the command line; the commands themselves are imported when they run."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from ... import __version__
from .command_parser import CommandParser
from .defaults import DEFAULT_URL, named_proxy_url
from .remote import parsers as remote
from .remote.parsers import add_key, add_url

_EPILOG = "Run swapchart COMMAND --help for details."


def build_parser(only: str | None = None) -> argparse.ArgumentParser:
    """Return the parser of the command line.

    Args:
        only: First argument of the command line. The options of other commands are left out then,
            since they take longer to add than most commands run.
    """
    parser = CommandParser(
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
    for name, (add, text) in _COMMANDS.items():
        command = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
        command.set_defaults(run=name)
        if only in (None, name):
            add(command)
    commands.add_parser(
        "demo-server", help="run a small OpenAI-compatible server without a model",
        add_help=False,
    ).set_defaults(run="demo-server")  # fmt: skip
    return parser


def _add_init(parser: CommandParser) -> None:
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
    parser.examples(
        "swapchart init ~/models",
        "swapchart init ~/models --ollama -o /etc/swapchart/config.yaml",
    )


def _add_serve(parser: CommandParser) -> None:
    _add_serve_options(parser)
    parser.examples(
        "swapchart serve",
        "swapchart serve --config config.yaml --watch-config",
        "swapchart serve --listen :8443 --tls-cert-file server.crt --tls-key-file server.key",
    )


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
        "--log-format", choices=("text", "json"), default="text",
        help="lines on standard error; default: %(default)s",
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


def _add_kv(parser: CommandParser) -> None:
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
            command.add_argument(
                "--words", action="store_true",
                help="show the first words of conversations of a library",
            )  # fmt: skip
        command.set_defaults(run="kv")
    parser.examples(
        "swapchart kv list",
        "swapchart kv purge qwen",
    )


def _add_config(parser: CommandParser) -> None:
    commands = parser.add_subparsers(dest="what", required=True, metavar="WHAT")
    check = commands.add_parser("check", help="print all problems; exit 1 if there is an error")
    check.add_argument("files", nargs="*", type=Path, metavar="FILE")
    check.add_argument(
        "--url", default=named_proxy_url(),
        help="running proxy whose notices of memory are printed too; default: $SWAPCHART_URL",
    )  # fmt: skip
    add_key(check)
    _add_serve_options(check.add_argument_group("options of `serve`, which are checked too"))
    check.set_defaults(run="config-check")
    schema = commands.add_parser("schema", help="print the JSON Schema, for editors")
    schema.set_defaults(run="config-schema")
    keys = commands.add_parser("keys", help="print the reference of all keys, or of one")
    keys.add_argument(
        "key", nargs="?", metavar="KEY",
        help="name or path of a key, such as ttl, models.*.ttl or drain.timeout; default: all",
    )  # fmt: skip
    keys.add_argument("--json", action="store_true", help="print JSON, for programs")
    keys.set_defaults(run="config-keys")
    plan = commands.add_parser("plan", help="show what a reload would change")
    plan.add_argument(
        "files", nargs="*", type=Path, metavar="FILE",
        help="OLD and NEW; default: the running proxy is asked what its changed files would change",
    )  # fmt: skip
    plan.add_argument("--url", help=f"default: $SWAPCHART_URL, or {DEFAULT_URL}")
    plan.set_defaults(run="config-plan")
    reload = commands.add_parser("reload", help="reload the configuration of a running proxy")
    add_key(plan)
    add_url(reload)
    reload.set_defaults(run="config-reload")
    for subcommand in (plan, reload):
        subcommand.add_argument("--json", action="store_true")
    parser.examples(
        "swapchart config check config.yaml",
        "swapchart config keys drain.timeout",
        "swapchart config plan --url http://127.0.0.1:8080",
        "swapchart config reload",
    )


def _add_doctor(parser: CommandParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON, for programs")
    _add_serve_options(parser.add_argument_group("options of `serve`, which are checked too"))
    parser.examples("swapchart doctor", "swapchart doctor --config config.yaml --json")


def _add_completion(parser: CommandParser) -> None:
    parser.add_argument("shell", choices=("bash", "zsh", "fish"))
    parser.examples(
        "swapchart completion bash > ~/.local/share/bash-completion/completions/swapchart",
        "swapchart completion fish > ~/.config/fish/completions/swapchart.fish",
    )


def _add_demo(parser: CommandParser) -> None:
    parser.add_argument("--listen", default="127.0.0.1:8080", metavar="HOST:PORT")
    parser.add_argument(
        "--load-seconds",
        type=float,
        default=1.0,
        help="time that a model takes to load; default %(default)s",
    )
    parser.examples(
        "swapchart demo",
        "swapchart demo --listen 127.0.0.1:9000 --load-seconds 0.2",
    )


def _add_service(parser: CommandParser) -> None:
    from .service.parser import add_service

    add_service(parser, _add_serve_options)
    parser.examples("swapchart service install --user", "swapchart service install --print")


def _add_run(parser: CommandParser) -> None:
    from .run.parser import add_run

    add_run(parser)


def _add_top(parser: CommandParser) -> None:
    from .top.parser import add_top

    add_top(parser)


def _add_chart(parser: CommandParser) -> None:
    from .chart_parsers import add_chart

    add_chart(parser)


#: Command -> function that adds its options, and its help.
_COMMANDS: dict[str, tuple[Callable[[CommandParser], None], str]] = {
    "init": (_add_init, "write a configuration for the models of this machine"),
    "run": (_add_run, "chat with a model, which is served if it is not yet"),
    "serve": (_add_serve, "run the proxy"),
    "doctor": (
        _add_doctor,
        "check this machine, the configuration and the port; exit 1 if `serve` would fail",
    ),
    "service": (_add_service, "write a systemd unit for the proxy"),
    "status": (remote.add_status, "show the models of a running proxy, its queue and its memory"),
    "top": (_add_top, "show the models of a running proxy live, load and unload them by keys"),
    "ps": (remote.add_ps, "show the models whose server runs"),
    "list": (remote.add_list, "list the models as clients see them"),
    "load": (remote.add_load, "load a model and wait until it is ready"),
    "unload": (remote.add_unload, "unload a model, or all"),
    "logs": (remote.add_logs, "print the log of the proxy, or the output of a model"),
    "queue": (remote.add_queue, "show the requests that wait, and why"),
    "explain": (remote.add_explain, "show what a request for a model would cause"),
    "chat": (remote.add_chat, "ask a model, with what it waits for and how long that takes"),
    "history": (remote.add_history, "show the transitions of a model, or of all"),
    "memory": (remote.add_memory, "show memory pools and what models hold"),
    "nodes": (remote.add_nodes, "show the machines on which models run"),
    "plan": (remote.add_plan, "the same as `explain`; --with: which models fit together"),
    "yield": (remote.add_yield, "leave memory pools to other programs"),
    "config": (_add_config, "check a configuration, explain its keys, print its schema"),
    "chart": (_add_chart, "export, draw and check the lifecycle"),
    "kv": (_add_kv, "list, verify or purge saved KV caches"),
    "completion": (_add_completion, "print a script that completes commands in a shell"),
    "demo": (_add_demo, "run the proxy with two demo models"),
}
