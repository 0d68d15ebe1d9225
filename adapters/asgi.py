"""Public entry point for ASGI servers: ``hypercorn 'swapchart.adapters.asgi:create_app()'``."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ..machine import ChartError, SwapchartError
from .store.state_directory import NotAFolderError, StateInUseError, default_directory
from .system.extras import missing_package

if TYPE_CHECKING:
    from .app.application import Application


def create_app(config: str | os.PathLike[str] | None = None) -> Application:
    """Create the application from a configuration file.

    Args:
        config: The file; by default the one that the environment variable SWAPCHART_CONFIG names.

    Raises:
        ConfigProblems: The configuration has errors; the exception lists all of them.
        ChartError: Its `lifecycle` does not fit, or breaks a promise; the notes have the events.
        StateInUseError: Another proxy runs with this configuration.
        NotAFolderError: The state directory cannot exist, because there is a file in its place.
        SystemExit: *config* is not given, and the file that the environment names is missing or has
            one of these errors, or a package is not installed. The text, which a server prints in
            place of a traceback, is the one of ``swapchart serve``.
    """
    if config is not None:
        return _create(Path(config))
    path = os.environ.get("SWAPCHART_CONFIG")
    if not path:
        raise SystemExit("expected a configuration file in SWAPCHART_CONFIG, found nothing")
    try:
        return _create(Path(path))
    except ModuleNotFoundError as error:
        if (message := missing_package(error, "this application")) is None:
            raise
        raise SystemExit(f"swapchart: {message}") from error
    except ChartError as error:
        from .app.chart_setup import chart_problem

        raise SystemExit(chart_problem(error)) from error
    except SwapchartError as error:
        raise SystemExit(str(error)) from error
    except (NotAFolderError, StateInUseError) as error:
        raise SystemExit(f"swapchart: {error}") from error


def _create(path: Path) -> Application:
    """Create the application from the file at *path*; raise as `create_app` does for a file."""
    from .app.application import Application, open_state
    from .app.chart_setup import chart
    from .app.config_files import ConfigFiles
    from .config import format_problems

    sources = ConfigFiles(files=[path])
    seen = sources.signature()
    config = sources.load()
    chart(config)
    if config.warnings:
        print(format_problems(config.warnings), file=sys.stderr)
    state = open_state(default_directory([path]))
    return Application(config, sources=sources, seen=seen, state=state)
