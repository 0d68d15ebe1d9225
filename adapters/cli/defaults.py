"""Defaults of options: variables, and files at known places."""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path

DEFAULT_URL = "http://127.0.0.1:8080"
_NAME = "config.yaml"
#: Exit code of `serve` with a configuration that cannot be used; EX_CONFIG of sysexits.h.
EXIT_CONFIG = 78
#: Exit code of a command that was ended by Ctrl-C; 128 and the number of SIGINT, as in shells.
EXIT_INTERRUPTED = 130


class NoConfigurationError(Exception):
    """No configuration is given, and none is at the known places; the text names them."""


def proxy_url() -> str:
    """Return the address of the proxy that commands ask: SWAPCHART_URL, or the default."""
    return named_proxy_url() or DEFAULT_URL


def named_proxy_url() -> str | None:
    """Return SWAPCHART_URL, or None if it is not set."""
    return os.environ.get("SWAPCHART_URL") or None


def api_key() -> str | None:
    """Return the API key of commands that ask a proxy: SWAPCHART_API_KEY, or None."""
    return os.environ.get("SWAPCHART_API_KEY") or None


def choose_configuration(options: Namespace) -> None:
    """Set ``options.config`` and ``options.config_dir`` if neither is given.

    SWAPCHART_CONFIG names a file or a directory. Without it, config.yaml of the working directory
    is taken, and then the one of the user's configuration directory.

    Raises:
        NoConfigurationError: There is none.
    """
    if options.config or options.config_dir:
        return
    if given := os.environ.get("SWAPCHART_CONFIG"):
        path = Path(given)
        if path.is_dir():
            options.config_dir = path
        else:
            options.config = [path]
        return
    places = list(_places())
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        where = " or ".join(str(place) for place in places)
        raise NoConfigurationError(
            f"no configuration: expected --config FILE, --config-dir DIR, SWAPCHART_CONFIG, or "
            f"a file at {where}; `swapchart init DIR` writes one for a folder of models"
        )
    options.config = [found]


def configuration_sources(options: Namespace) -> list[Path]:
    """Return the files, and then the directory, of the configuration that *options* name."""
    return [*options.config, *([options.config_dir] if options.config_dir else [])]


def listen_address(options: Namespace) -> str:
    """Return the address that `serve` listens on: ``--listen``, or the default."""
    given: str | None = options.listen
    return given or f"127.0.0.1:{8443 if options.tls_cert_file else 8080}"


def config_home() -> Path:
    """Return the directory in which programs look for configurations of the user."""
    base = os.environ.get("XDG_CONFIG_HOME")
    return Path(base) if base else Path.home() / ".config"


def _places() -> Iterator[Path]:
    yield Path(_NAME)
    yield config_home() / "swapchart" / _NAME
