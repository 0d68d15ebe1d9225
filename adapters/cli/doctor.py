"""`swapchart doctor`: whether this machine can run the proxy, and what to do if it cannot.

Each check returns findings, and changes nothing. What it needs is imported when it runs, so that
the command reports missing packages instead of failing for them.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import platform
import re
import resource
from collections.abc import Callable, Sequence
from dataclasses import asdict
from importlib import metadata
from pathlib import Path

from ... import __version__
from ...dataclass import dataclass
from ..system.extras import missing_package
from .defaults import NoConfigurationError, configuration_sources, listen_address
from .output import _fail
from .remote.client import ApiError, Proxy
from .remote.table import count, size

#: Hard limit of open files below which `doctor` warns; a request takes two, a model about ten.
ENOUGH_FILES = 4096
_NAME = re.compile(r"[\w.-]+")
_LIMIT_S = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Result of one check.

    Attributes:
        check: Name of the check.
        level: ``ok``, ``warning`` or ``problem``; with a problem, `serve` fails.
        text: What was found, and what to do about it.
    """

    check: str
    level: str
    text: str


Findings = list[Finding]


def doctor(options: argparse.Namespace) -> int:
    """Print the result of each check; return 1 if there is a problem."""
    findings = [
        finding
        for name, check in _CHECKS.items()
        for finding in _checked(name, check, options)
    ]  # fmt: skip
    if options.json:
        print(json.dumps({"findings": [asdict(each) for each in findings]}, indent=2))
    else:
        for each in findings:
            text = each.text.replace("\n", "\n" + " " * 9)
            print(f"{each.level:8} {each.check}: {text}")
    problems = sum(each.level == "problem" for each in findings)
    return _fail(f"{count(problems, 'problem')} found") if problems else 0


def _checked(
    name: str, check: Callable[[argparse.Namespace], Sequence[tuple[str, str]]],
    options: argparse.Namespace,
) -> Findings:  # fmt: skip
    try:
        found = check(options)
    except ModuleNotFoundError as error:
        if (why := missing_package(error, "this check")) is None:
            raise
        found = [("warning", why)]
    return [Finding(check=name, level=level, text=text) for level, text in found]


def _python(_: argparse.Namespace) -> Sequence[tuple[str, str]]:
    versions = f"swapchart {__version__}, Python {platform.python_version()}"
    if platform.system() != "Linux":
        return [("problem", f"{versions} on {platform.system()}; swapchart runs on Linux")]
    return [("ok", versions)]


def _extras(_: argparse.Namespace) -> Sequence[tuple[str, str]]:
    try:
        requirements = metadata.requires("swapchart") or []
    except metadata.PackageNotFoundError:
        return [("warning", "swapchart is not installed as a package; its extras are not known")]
    missing: dict[str, list[str]] = {}
    for requirement in requirements:  # such as: httpx<1,>=0.28; extra == 'proxy'
        package = _NAME.match(requirement)
        extra = requirement.partition("extra ==")[2].strip(" '\"")
        if package and extra and extra != "all":
            absent = missing.setdefault(extra, [])
            if not _is_installed(package[0]):
                absent.append(package[0])
    present = ", ".join(extra for extra, absent in missing.items() if not absent)
    found = [("ok", f"installed: {present}")] if present else []
    for extra, absent in missing.items():
        if absent:
            level = "problem" if extra == "proxy" else "ok"
            how = f"in a clone: pip install '.[{extra}]'"
            found.append((level, f"`{extra}` is not installed: {', '.join(absent)}; {how}"))
    return found


def _is_installed(package: str) -> bool:
    try:
        metadata.version(package)
    except metadata.PackageNotFoundError:
        return False
    return True


def _engines(_: argparse.Namespace) -> Sequence[tuple[str, str]]:
    from ..discovery import find_engines

    engines = find_engines()
    if found := [each for each in (engines.llama_server, engines.vllm) if each]:
        return [("ok", f"{' and '.join(found)} in PATH")]
    return [
        (
            "warning",
            "neither llama-server nor vllm is in PATH; install one, or write its path into `cmd`",
        )
    ]


class _Kept(logging.Handler):
    """Handler that keeps the messages of warnings."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())


def _memory(_: argparse.Namespace) -> Sequence[tuple[str, str]]:
    from ..memory import Meter, meter

    kept, log = _Kept(), meter.log
    log.addHandler(kept)
    was_propagated, log.propagate = log.propagate, False
    try:
        readings = Meter().read_blocking(())
    except OSError as error:
        return [("warning", f"{error}; with `memory:`, declare the capacity of each pool")]
    finally:
        log.removeHandler(kept)
        log.propagate = was_propagated
    pools = ", ".join(f"{size(each.capacity)} of {each.name}" for each in readings)
    return [("ok", pools), *(("warning", text) for text in kept.texts)]


def _configuration(options: argparse.Namespace) -> Sequence[tuple[str, str]]:
    from .config import examine

    try:
        found = examine(options)
    except NoConfigurationError as error:
        return [("problem", str(error))]
    if found.errors:
        return [("problem", "\n".join(found.texts))]
    level = "warning" if found.warnings else "ok"
    return [(level, "\n".join([found.summary(), *found.texts]))]


def _port(options: argparse.Namespace) -> Sequence[tuple[str, str]]:
    from ..server import listen

    address, url = _address(options)
    try:
        listen.bind(address).close()
    except listen.BindError as error:
        if _is_proxy(url):
            return [("ok", f"a swapchart responds at {url}")]
        return [("problem", str(error))]
    return [("ok", f"{address} is free")]


def _ollama(options: argparse.Namespace) -> Sequence[tuple[str, str]]:
    """Look at the address for clients of Ollama, if the configuration has one."""
    from ..config import ConfigProblems, load_config
    from ..server import listen

    try:
        config = load_config(options.config, options.config_dir, is_lenient=options.lenient)
    except ConfigProblems:
        return []  # which the check of the configuration reports
    if config.ollama is None:
        return []
    address = config.ollama.listen
    try:
        listen.bind(address).close()
    except listen.BindError as error:
        if _is_proxy(_address(options)[1]):
            return [("ok", f"{address} is taken, and a swapchart runs")]
        reason = getattr(error.__cause__, "strerror", None) or str(error)
        text = f"{address}: {reason}; stop the program there, which may be Ollama itself"
        return [("warning", f"{text}, or set another `ollama.listen`")]
    return [("ok", f"{address} is free")]


def _address(options: argparse.Namespace) -> tuple[str, str]:
    """Return the address that `serve` would listen on, and its URL for this machine."""
    scheme = "https" if options.tls_cert_file else "http"
    address = listen_address(options)
    host, _, port = address.rpartition(":")
    host = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "[::]": "[::1]"}.get(host, host)
    return address, f"{scheme}://{host}:{port}{options.root_path}"


def _is_proxy(url: str) -> bool:
    """Return True if a swapchart responds at *url*, with or without a key."""
    try:
        Proxy(url).send("GET", "/api/queue", field="queue", limit_s=_LIMIT_S)
    except ApiError as error:
        return error.status == 401 and bool(error.error)  # the error object of a swapchart
    return True


def _state(options: argparse.Namespace) -> Sequence[tuple[str, str]]:
    from ..store.state_directory import (
        NotAFolderError,
        check_folder,
        check_private,
        default_directory,
        state_holder,
    )

    sources = configuration_sources(options)
    if not sources and not options.state_dir:
        return []  # its name depends on the configuration
    path: Path = options.state_dir or default_directory(sources)
    how = "choose another one with --state-dir or SWAPCHART_STATE_DIR"
    try:
        check_folder(path)
        there = next(place for place in (path, *path.absolute().parents) if place.is_dir())
        if not os.access(there, os.W_OK | os.X_OK):
            raise PermissionError(f"{path} is not used: {there} is not writable for this user")
        if there != path:
            return [("ok", f"{path} can be created")]
        check_private(path)
        holder = state_holder(path)
    except NotAFolderError as error:
        return [("problem", str(error))]
    except OSError as error:
        return [("warning", f"{error}; `serve` would lose its state at its end; {how}")]
    if holder is None:
        return [("ok", str(path))]
    text = f"{path} is used by a running swapchart (pid {holder or 'not known'})"
    if _is_proxy(_address(options)[1]):
        return [("ok", text)]
    return [("problem", f"{text}, so that `serve` ends with code 3; stop it, or {how}")]


def _open_files(_: argparse.Namespace) -> Sequence[tuple[str, str]]:
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if limit == resource.RLIM_INFINITY or limit >= ENOUGH_FILES:
        return [("ok", "unlimited" if limit == resource.RLIM_INFINITY else f"limit {limit}")]
    how = "raise it by `ulimit -Hn` as root, or by LimitNOFILE in the systemd unit"
    return [
        ("warning", f"the hard limit is {limit}, and each request in flight takes two; {how}")
    ]  # fmt: skip


_CHECKS: dict[str, Callable[[argparse.Namespace], Sequence[tuple[str, str]]]] = {
    "version": _python,
    "extras": _extras,
    "engines": _engines,
    "memory": _memory,
    "configuration": _configuration,
    "address": _port,
    "clients of Ollama": _ollama,
    "state directory": _state,
    "open files": _open_files,
}
