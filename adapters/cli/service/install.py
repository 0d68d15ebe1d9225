"""`swapchart service install`: checks the configuration, writes the unit, says what comes next."""

from __future__ import annotations

import argparse
import getpass
import os
import pwd
import re
import shutil
import stat
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from ....machine import ChartError
from ...app.chart_setup import chart, chart_problem
from ...app.config_files import ConfigFiles
from ...app.shutdown_timeout import stop_limit_s
from ...config import Config, ConfigProblems, format_problems
from ...server.listen import BindError, parse_address
from ...system.whole_files import write_whole
from ..defaults import NoConfigurationError, choose_configuration, config_home, listen_address
from ..output import _fail
from ..serve import check_address, root_path
from .access import check_access
from .command_line import program, search_path, serve_words
from .unit import NAME, SOCKET_NAME, Unit, UnitError, socket_text

_SYSTEM = Path("/etc/systemd/system")
_SYSTEM_STATE = Path("/var/lib/swapchart/state")
_SYSTEM_VARIABLES = Path("/etc/default/swapchart")

#: Programs that get more privileges than their caller, which a confined service denies them.
_PRIVILEGED = re.compile(
    r"\b(?:sudo|doas|su|pkexec|newgrp|podman|buildah|apptainer|singularity|distrobox|bwrap)\b"
)
_VARIABLE = re.compile(r"\$\{env\.(\w+)\}")
_ASSIGNMENT = re.compile(r"\s*(\w+)=(.*)")


def install(options: argparse.Namespace) -> int:
    """Write the unit, or print it with ``--print``."""
    try:
        variables_path = _variables_path(options)
        texts, variables = _unit_texts(options, variables_path)
        if options.is_printed:
            print("\n".join(_headed(texts)), end="")
            return 0
        folder = config_home() / "systemd/user" if options.user else _SYSTEM
        _write({folder / name: text for name, text in texts.items()}, options)
    except ConfigProblems as error:
        print(format_problems(error.problems), file=sys.stderr)
        return 1
    except ChartError as error:
        print(chart_problem(error), file=sys.stderr)
        return 1
    except (UnitError, NoConfigurationError, BindError) as error:
        return _fail(str(error))
    for name in texts:
        print(f"wrote {folder / name}")
    if variables:
        print(f"put {', '.join(variables)} into {variables_path}, one NAME=VALUE a line")
    print("next:")
    for command in next_commands(is_user=options.user):
        print(f"  {command}")
    return 0


def next_commands(*, is_user: bool) -> list[str]:
    """Return the commands that start the service and show its log."""
    who = " --user" if is_user else ""
    commands = [
        f"systemctl{who} daemon-reload",
        f"systemctl{who} enable --now swapchart",
        f"journalctl{who} -u swapchart -f",
    ]
    return [*commands, *(["loginctl enable-linger"] if is_user else [])]


def _headed(texts: Mapping[str, str]) -> list[str]:
    """Return the texts of units; where there are several, each below its name."""
    if len(texts) == 1:
        return list(texts.values())
    return [f"# {name}\n{text}" for name, text in texts.items()]


def _unit_texts(
    options: argparse.Namespace, variables_path: Path
) -> tuple[dict[str, str], list[str]]:
    """Return unit -> its text, and the variables that the service does not get yet."""
    choose_configuration(options)
    given = _assignments(variables_path)
    for name, value in given.items():
        os.environ.setdefault(name, value)
    config, files = _load(options)
    _check_keeping(config, is_asked=options.keep_models)
    user = None if options.user else _user(options.run_as)
    if user is not None:
        own = [options.tls_cert_file, options.tls_key_file]
        check_access(user, program(), [*files, *(path for path in own if path)])
    if user is not None and options.state_dir is None:
        options.state_dir = _SYSTEM_STATE
    texts = [path.read_text("utf-8", "replace") for path in files]
    unit = Unit(
        program=program(), options=serve_words(options), folder=files[0].absolute().parent,
        search_path=search_path(os.environ.get("PATH", os.defpath)),
        environment_file="%E/swapchart/environment" if options.user else str(variables_path),
        stop_limit_s=stop_limit_s(config), user=user, is_confined=is_confined(texts),
        keeps_models=options.keep_models,
    )  # fmt: skip
    used = {name for text in texts for name in _VARIABLE.findall(text)}
    units = {NAME: unit.text()}
    if options.keep_models:
        units[SOCKET_NAME] = socket_text(*parse_address(listen_address(options)))
    return units, sorted(used - set(given))


def _check_keeping(config: Config, *, is_asked: bool) -> None:
    """Check that unit and configuration agree on models that outlive the proxy.

    Raises:
        UnitError: They do not.
    """
    if is_asked and config.keep_lease_s is None:
        raise UnitError("--keep-models needs `keepModels: true` in the configuration")
    if config.keep_lease_s is not None and not is_asked:
        raise UnitError(
            "`keepModels` is set: add --keep-models, or systemd kills the models with the proxy"
        )


def _load(options: argparse.Namespace) -> tuple[Config, list[Path]]:
    """Return the configuration and its files, checked as `serve` does."""
    sources = ConfigFiles(
        files=options.config, directory=options.config_dir, is_lenient=options.lenient
    )
    config = sources.load()
    chart(config)
    root_path(options)
    check_address(options, config)
    return config, [Path(path) for path, *_ in sources.signature()]


def is_confined(texts: Iterable[str]) -> bool:
    """Return True if nothing needs more privileges than the user of the service has.

    CUDA runs nvidia-modprobe, a setuid program, where the driver is not loaded completely.
    """
    helper = shutil.which("nvidia-modprobe")
    if helper is not None and Path(helper).stat().st_mode & stat.S_ISUID:
        return False
    return not any(_PRIVILEGED.search(text) for text in texts)


def _user(wanted: str | None) -> str:
    """Return the name of the user that the service runs as.

    Raises:
        UnitError: There is no such user.
    """
    name = wanted or os.environ.get("SUDO_USER") or getpass.getuser()
    try:
        pwd.getpwnam(name)
    except KeyError as error:
        raise UnitError(f"--run-as {name}: this machine has no such user") from error
    return name


def _variables_path(options: argparse.Namespace) -> Path:
    return config_home() / "swapchart/environment" if options.user else _SYSTEM_VARIABLES


def _assignments(path: Path) -> Mapping[str, str]:
    """Return the variables of an environment file; none if it cannot be read."""
    try:
        lines = path.read_text("utf-8").splitlines()
    except OSError:
        return {}
    found = (_ASSIGNMENT.fullmatch(line) for line in lines)
    return {each[1]: each[2].strip().strip("\"'") for each in found if each is not None}


def _write(texts: Mapping[Path, str], options: argparse.Namespace) -> None:
    """Write the unit files.

    Raises:
        UnitError: There is one already, or one cannot be written; none was written then.
    """
    for path in texts:
        if path.exists() and not options.force:
            raise UnitError(
                f"{path} exists; use --force to overwrite it, or --print to see the unit"
            )
    for path, text in texts.items():
        try:
            if options.user:
                path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, text)
        except OSError as error:
            advice = "" if options.user else "; use sudo, or --user for a unit of your own"
            raise UnitError(f"{path} cannot be written: {error.strerror}{advice}") from error
