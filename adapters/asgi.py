"""Public entry point for ASGI servers: ``hypercorn 'swapchart.adapters.asgi:create_app()'``."""

from __future__ import annotations

import os
from pathlib import Path

from .app.application import Application, open_state
from .app.config_files import ConfigFiles
from .store.state_directory import default_directory


def create_app(config: str | os.PathLike[str] | None = None) -> Application:
    """Create the application from a configuration file.

    Args:
        config: The file; by default the one that the environment variable SWAPCHART_CONFIG names.

    Raises:
        ConfigProblems: The configuration has errors; the exception lists all of them.
        StateInUseError: Another proxy runs with this configuration.
        SystemExit: No file is given.
    """
    path = config or os.environ.get("SWAPCHART_CONFIG")
    if not path:
        raise SystemExit("expected a configuration file in SWAPCHART_CONFIG, found nothing")
    files = [Path(path)]
    sources = ConfigFiles(files=files)
    seen = sources.signature()
    return Application(
        sources.load(), sources=sources, seen=seen, state=open_state(default_directory(files))
    )
