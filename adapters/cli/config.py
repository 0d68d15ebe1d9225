"""Commands for configurations: check, schema, plan and reload."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from ...machine import ChartError
from ...runtime import SwapchartError
from ...runtime.ports import PoolReading
from ..config import (
    Config,
    ConfigProblems,
    Problem,
    config_schema,
    examine_config,
    format_problems,
    load_config,
)
from ..server.listen import BindError
from ..system.extras import missing_package
from .defaults import (
    NoConfigurationError,
    choose_configuration,
    configuration_sources,
)
from .output import _fail
from .remote.client import ApiError, proxy_of, reading
from .serve import check_address, root_path


def plan(options: argparse.Namespace) -> int:
    """Print the plan of a reload, between two files."""
    from ..app.chart_setup import chart, chart_problem

    if options.url is not None or len(options.files) != 2:
        _fail("config plan: expected two files, OLD and NEW, or none for those of a running proxy")
        return 2
    try:
        old, new = _load_both(*options.files)
        chart(new)
    except ConfigProblems as error:
        print(format_problems(error.problems), file=sys.stderr)
        return 1
    except ChartError as error:
        print(chart_problem(error), file=sys.stderr)
        return 1
    from ..app import reload_plan as pure
    from ..app.fitting import lost_combinations

    planned = pure.plan(old, new, memory=lost_combinations(old, new, _readings(old, new)))
    if new.warnings:
        print(format_problems(new.warnings), file=sys.stderr)
    print(json.dumps(planned.as_json(), indent=2) if options.json else planned)
    return 0


def _readings(*configs: Config) -> Sequence[PoolReading]:
    """Return the memory pools of this machine, if one of *configs* uses them."""
    if all(config.memory.mode == "off" for config in configs):
        return ()
    from ..memory import Meter

    try:
        return Meter().read_blocking(())
    except OSError:
        return ()  # only declared pools are known


def _load_both(old: Path, new: Path) -> tuple[Config, Config]:
    before = load_config([old])
    ports = {model.id: model.port for model in before.models.values() if model.port is not None}
    return before, load_config([new], ports=ports)


class Examined:
    """Result of a check of a configuration.

    Attributes:
        sources: Files and directory that were checked.
        texts: Texts of the problems, in the order of their discovery.
        errors: Number of errors; with none, `serve` accepts the configuration.
        warnings: Number of warnings.
    """

    def __init__(self, sources: Sequence[Path]) -> None:
        self.sources = sources
        self.texts: list[str] = []
        self.errors = self.warnings = 0

    def add(self, problems: Sequence[Problem]) -> None:
        """Count *problems* and keep their text."""
        errors = sum(problem.severity == "error" for problem in problems)
        self.errors += errors
        self.warnings += len(problems) - errors
        if problems:
            self.texts.append(format_problems(problems))

    def fail(self, text: object) -> None:
        """Count an error with *text*."""
        self.errors += 1
        self.texts.append(str(text))

    def summary(self) -> str:
        """Return the line about a configuration without errors."""
        count = self.warnings
        warned = f", with {count} warning{'s' if count > 1 else ''}" if count else ""
        return f"{', '.join(map(str, self.sources))}: ok{warned}"


def examine(options: argparse.Namespace) -> Examined:
    """Check a configuration, and the options of `serve` that were given.

    Raises:
        NoConfigurationError: There is none.
    """
    from ..app.chart_setup import chart, chart_problem
    from ..app.container_setup import container_problems
    from ..app.fitting import fitting_problems
    from ..app.kv_setup import kv_problems
    from ..store.state_directory import NotAFolderError, check_folder, default_directory

    choose_configuration(options)
    found = Examined(configuration_sources(options))
    config, problems = examine_config(
        options.config, options.config_dir, is_lenient=options.lenient
    )
    found.add(problems)
    if config is None:
        return found
    try:
        state = options.state_dir or default_directory(found.sources)
        found.add([*kv_problems(config, state), *fitting_problems(config, _readings(config))])
        found.add(container_problems(config, dict(os.environ)))
        chart(config)
        check_address(options, config)
        root_path(options)
        check_folder(state)
        import_module(options.server)
    except ChartError as error:
        found.fail(chart_problem(error))
    except (SwapchartError, BindError, NotAFolderError) as error:
        found.fail(error)
    except ModuleNotFoundError as error:
        found.fail(missing_package(error, f"--server {options.server}") or error)
    return found


def check(options: argparse.Namespace) -> int:
    """Print all problems of a configuration, and of the options of `serve` that were given."""
    options.config = [*options.files, *options.config]
    try:
        found = examine(options)
    except NoConfigurationError as error:
        return _fail(str(error))
    if options.url is not None:
        found.add(_notices(options))
    for text in found.texts:
        print(text)
    if not found.errors:
        print(found.summary())
    return 1 if found.errors else 0


def _notices(options: argparse.Namespace) -> list[Problem]:
    """Return what a running proxy says of its memory; a proxy that does not respond is one too."""
    try:
        found = proxy_of(options).get("/api/memory", "notices")
        with reading(options.url):
            texts = [str(notice["text"]) for notice in found["notices"]]
    except ApiError as error:
        texts = [str(error)]
    return [
        Problem(file="", path="memory", line=0, column=0, message=text, severity="warning")
        for text in texts
    ]


def schema(options: argparse.Namespace) -> int:
    """Print the JSON Schema of the configuration."""
    print(json.dumps(config_schema(), indent=2))
    return 0
