"""Options of the commands that ask a running proxy."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..command_parser import CommandParser
from ..defaults import DEFAULT_URL, api_key, proxy_url


def add_proxy(parser: argparse.ArgumentParser) -> None:
    """Add the options of a command that asks a running proxy."""
    add_url(parser)
    parser.add_argument("--json", action="store_true", help="print JSON, for programs")


def add_url(parser: argparse.ArgumentParser) -> None:
    """Add the options that say which proxy is asked."""
    parser.add_argument(
        "--url", default=proxy_url(), help=f"default: $SWAPCHART_URL, or {DEFAULT_URL}"
    )
    add_key(parser)


def add_key(parser: argparse.ArgumentParser) -> None:
    """Add the option with the key that the proxy is asked with."""
    parser.add_argument(
        "--api-key", default=api_key(),
        help="API key, if the proxy needs one; default: $SWAPCHART_API_KEY",
    )  # fmt: skip


def _model(parser: argparse.ArgumentParser, **more: str) -> None:
    parser.add_argument("model", metavar="MODEL", help="id of a model, or an alias", **more)  # type: ignore[arg-type]


def add_status(parser: CommandParser) -> None:
    """Add the options of `status`."""
    add_proxy(parser)
    parser.examples(
        "swapchart status",
        "swapchart status --url http://gpu-box:8080 --api-key sk-secret",
        "swapchart status --json",
    )


def add_ps(parser: CommandParser) -> None:
    """Add the options of `ps`."""
    add_proxy(parser)
    parser.examples("swapchart ps", "swapchart ps --json")


def add_list(parser: CommandParser) -> None:
    """Add the options of `list`."""
    add_proxy(parser)
    parser.examples("swapchart list", "swapchart list --json")


def add_load(parser: CommandParser) -> None:
    """Add the options of `load`."""
    _model(parser)
    add_proxy(parser)
    parser.examples("swapchart load qwen")


def add_unload(parser: CommandParser) -> None:
    """Add the options of `unload`."""
    _model(parser, nargs="?")
    parser.add_argument("--all", action="store_true", help="unload all models")
    add_proxy(parser)
    parser.examples("swapchart unload qwen", "swapchart unload --all")


def add_logs(parser: CommandParser) -> None:
    """Add the options of `logs`."""
    parser.add_argument(
        "model", metavar="MODEL", nargs="?",
        help="model, or `proxy` for the lines of the proxy alone, or `upstream` for the output of "
        "all models; default: all",
    )  # fmt: skip
    parser.add_argument("-f", "--follow", action="store_true", help="print later lines too")
    parser.add_argument(
        "-n",
        "--lines",
        type=_not_negative,
        metavar="N",
        help="print the last N lines; default: all",
    )
    add_proxy(parser)
    parser.examples(
        "swapchart logs", "swapchart logs qwen -n 20", "swapchart logs -f proxy  # until Ctrl-C"
    )


def add_queue(parser: CommandParser) -> None:
    """Add the options of `queue`."""
    add_proxy(parser)
    parser.examples("swapchart queue", "swapchart queue --json")


def add_explain(parser: CommandParser) -> None:
    """Add the options of `explain`."""
    _model(parser)
    add_proxy(parser)
    parser.examples("swapchart explain qwen", "swapchart explain qwen --json")


def add_plan(parser: CommandParser) -> None:
    """Add the options of `plan`."""
    parser.add_argument("model", nargs="?", metavar="MODEL", help="model of a running proxy")
    add_proxy(parser)
    parser.add_argument(
        "--with", dest="beside", metavar="A,B,C",
        help="whether these models fit together, by the configuration and what was learned; asks "
        "no proxy",
    )  # fmt: skip
    for_serve = "as for `serve`"
    parser.add_argument(
        "--config", action="append", type=Path, default=[], metavar="FILE", help=for_serve
    )
    parser.add_argument("--config-dir", type=Path, metavar="DIR", help=for_serve)
    parser.add_argument("--state-dir", type=Path, metavar="DIR", help=for_serve)
    parser.examples("swapchart plan qwen", "swapchart plan --with qwen,embed --config config.yaml")


def add_yield(parser: CommandParser) -> None:
    """Add the options of `yield`."""
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
    add_proxy(parser)
    parser.examples("swapchart yield gpu0 --for 2h", "swapchart yield gpu0 --end")


def add_question(parser: argparse.ArgumentParser) -> None:
    """Add the options of a command that asks a model."""
    parser.add_argument(
        "prompt", metavar="PROMPT", nargs="?",
        help="one question; default: the standard input, or a conversation in a terminal",
    )  # fmt: skip
    parser.add_argument("--system", metavar="TEXT", help="system prompt")
    parser.add_argument("--max-tokens", type=int, metavar="N", help="length of a response")


def add_chat(parser: CommandParser) -> None:
    """Add the options of `chat`."""
    parser.is_intermixed = True
    _model(parser)
    add_question(parser)
    add_proxy(parser)
    parser.examples(
        'swapchart chat qwen "Why is the sky blue?"',
        "swapchart chat qwen < question.txt",
        "swapchart chat qwen  # a conversation, until Ctrl-D",
    )


def add_history(parser: CommandParser) -> None:
    """Add the options of `history`."""
    _model(parser, nargs="?")
    parser.add_argument("-f", "--follow", action="store_true", help="print later transitions too")
    parser.add_argument(
        "--limit", type=_not_negative, default=50, metavar="N",
        help="number of past transitions; default: %(default)s",
    )  # fmt: skip
    add_proxy(parser)
    parser.examples(
        "swapchart history", "swapchart history qwen --limit 10",
        "swapchart history --follow  # all models, until Ctrl-C",
    )  # fmt: skip


def add_memory(parser: CommandParser) -> None:
    """Add the options of `memory`."""
    add_proxy(parser)
    parser.examples("swapchart memory", "swapchart memory --json")


def add_nodes(parser: CommandParser) -> None:
    """Add the options of `nodes`."""
    parser.add_argument(
        "--free", metavar="NODE",
        help="say that nothing runs on a lost node any more, as when its machine is off: models "
        "that were lost there no longer hold anything of it",
    )  # fmt: skip
    add_proxy(parser)
    parser.examples("swapchart nodes", "swapchart nodes --free gpu-box", "swapchart nodes --json")


def _not_negative(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected a number that is not negative, got {text!r}")
    return int(text)
