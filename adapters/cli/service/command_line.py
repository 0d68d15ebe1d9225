"""Command line of `swapchart serve` from its parsed options."""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

_VALUES = ("config_dir", "listen", "tls_cert_file", "tls_key_file", "root_path", "state_dir")
_FLAGS = ("stock", "watch_config", "lenient", "allow_unauthenticated")
_DEFAULT_LOG_FORMAT = "text"
_DEFAULT_SERVER = "hypercorn"


def program() -> list[str]:
    """Return the words that run this installation of swapchart from any directory."""
    beside = Path(sys.executable).with_name("swapchart")
    if beside.is_file():
        return [str(beside)]
    return [sys.executable, "-P", "-m", "swapchart"]


def serve_words(options: argparse.Namespace) -> list[str]:
    """Return `serve` and the words of *options*; paths become absolute."""
    return ["serve", *_options(options)]


def _options(options: argparse.Namespace) -> Iterator[str]:
    for path in options.config:
        yield from ("--config", str(path.absolute()))
    for name in _VALUES:
        if value := getattr(options, name):
            text = str(value.absolute() if isinstance(value, Path) else value)
            yield from (_option(name), text)
    if options.server != _DEFAULT_SERVER:
        yield from ("--server", options.server)
    if options.log_format != _DEFAULT_LOG_FORMAT:
        yield from ("--log-format", options.log_format)
    for name in _FLAGS:
        if getattr(options, name):
            yield _option(name)


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def search_path(text: str) -> str:
    """Return the absolute folders of the variable PATH, each of them once.

    Without this installation's folder a configuration could not name `swapchart demo-server`.
    """
    own = shutil.which("swapchart", path=text) is None
    folders = [*([str(Path(sys.executable).parent)] if own else []), *text.split(":")]
    return ":".join(dict.fromkeys(folder for folder in folders if folder.startswith("/")))
