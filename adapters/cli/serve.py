"""`swapchart serve`: options to a running proxy."""

from __future__ import annotations

import argparse
import logging
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ...machine import ChartError
from ..app.standard_streams import never_waiting
from ..config import Config, ConfigProblems, format_problems
from ..server import listen
from ..server.options import ServeOptions
from ..system.addresses import is_loopback
from .defaults import (
    EXIT_CONFIG,
    NoConfigurationError,
    choose_configuration,
    configuration_sources,
    listen_address,
)
from .output import _fail, _log_to_stderr

if TYPE_CHECKING:
    from ..app.application import Application

log = logging.getLogger(__name__)


def serve(options: argparse.Namespace) -> int:
    """Run the proxy until a signal arrives and return the exit code."""
    with never_waiting():
        return _serve(options)


def _serve(options: argparse.Namespace) -> int:
    from ..app.chart_setup import chart, chart_problem
    from ..app.config_files import ConfigFiles
    from ..server.systemd import passed_socket

    try:
        choose_configuration(options)
    except NoConfigurationError as error:
        _fail(str(error))
        return EXIT_CONFIG
    sources = ConfigFiles(
        files=options.config, directory=options.config_dir, is_lenient=options.lenient
    )
    seen = sources.signature()
    try:
        config = sources.load()
        chart(config)
    except ConfigProblems as error:
        print(format_problems(error.problems), file=sys.stderr)
        return EXIT_CONFIG
    except ChartError as error:
        print(chart_problem(error), file=sys.stderr)
        return EXIT_CONFIG
    _begin_log(config, is_json=options.log_format == "json")
    try:
        root = root_path(options)
        passed = passed_socket()
        certificate, address, must_have_keys = check_address(options, config, passed)
        sock = passed or listen.bind(address)
    except listen.BindError as error:
        return _fail(str(error), error.exit_code)
    # The imports that take longest come now that clients can connect.
    from ..app.application import Application, open_state
    from ..app.shutdown_timeout import stop_limit_s
    from ..store.state_directory import NotAFolderError, StateInUseError, default_directory

    names = ", ".join(config.models) or "none"

    def on_listening(url: str) -> None:
        _say(options, f"swapchart listens on {url} ({options.server}); models: {names}")

    files = configuration_sources(options)
    try:
        state = open_state(options.state_dir or default_directory(files))
    except StateInUseError as error:
        _fail(str(error))
        return 3
    except NotAFolderError as error:
        return _fail(str(error))
    limit = stop_limit_s(config)
    how = ServeOptions(
        server=options.server, is_stock=options.stock, certificate=certificate,
        stop_limit_s=limit, on_listening=on_listening,
    )  # fmt: skip
    return _run(
        lambda: Application(
            config, sources=sources, seen=seen, is_watching=options.watch_config,
            must_have_keys=must_have_keys, state=state, root_path=root, may_keep=True,
        ), sock, how,
    )  # fmt: skip


def _run(make: Callable[[], Application], sock: socket.socket, how: ServeOptions) -> int:
    """Make the application, serve it until a signal arrives, and return the exit code."""
    from ..app.cluster.nodes import EngineMissingError
    from ..proxy.tracing.missing import TracingMissingError
    from ..ray.errors import ClusterInUseError
    from ..server import run as server

    try:
        return server.run(make(), sock, how)
    except (EngineMissingError, TracingMissingError) as error:
        _fail(str(error))
        return EXIT_CONFIG
    except ClusterInUseError as error:
        _fail(str(error))
        return 3


def _begin_log(config: Config, *, is_json: bool) -> None:
    """Log to standard error from now on, the warnings of *config* first."""
    if config.warnings and not is_json:
        print(format_problems(config.warnings), file=sys.stderr)
    _log_to_stderr(config.log_level, is_json=is_json)
    if is_json:
        for problem in config.warnings:
            log.warning("%s", problem)


def _say(options: argparse.Namespace, text: str) -> None:
    """Write a line to standard error; as JSON it needs the level info."""
    if options.log_format == "json":
        log.info("%s", text)
    else:
        print(text, file=sys.stderr)


def check_address(
    options: argparse.Namespace, config: Config, passed: socket.socket | None = None
) -> tuple[tuple[Path, Path] | None, str, bool]:
    """Return the certificate, the address to listen on, and whether API keys are required.

    Args:
        options: Options of the command.
        config: The configuration.
        passed: Socket that systemd passed, whose address counts; None means ``--listen``.

    Raises:
        BindError: The options do not fit each other or *config*.
    """
    certificate = listen.check_certificate(options.tls_cert_file, options.tls_key_file)
    address = listen_address(options) if passed is None else listen.address_of(passed)
    host, port = listen.parse_address(address)
    if passed is not None and options.listen:
        asked_host, asked_port = listen.parse_address(options.listen)
        if (asked_host.replace("localhost", "127.0.0.1"), asked_port) != (host, port):
            log.warning("systemd passed a socket at %s; --listen has no effect", address)
    must_have_keys = not (is_loopback(host) or options.allow_unauthenticated)
    if must_have_keys and not config.api_keys:
        raise listen.BindError(
            f"{address} can be reached from other machines and no apiKeys are "
            "configured; add one, listen on 127.0.0.1, or use --allow-unauthenticated"
        )
    return certificate, address, must_have_keys


def root_path(options: argparse.Namespace) -> str:
    """Return the checked value of ``--root-path``.

    Raises:
        BindError: It cannot be a root path.
    """
    if not options.root_path:
        return ""  # without the routes, whose import takes longer than anything else
    from ..app.root_path import parse_root_path
    from ..proxy.api.route_table import ROUTES

    try:
        return parse_root_path(options.root_path, ROUTES.paths)
    except ValueError as error:
        raise listen.OptionError(f"--root-path: {error}") from error
