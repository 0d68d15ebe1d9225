"""Loader: reads, merges, expands and checks a configuration; executes nothing."""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from collections.abc import Mapping as Map
from collections.abc import Sequence as Listing
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Literal

from ...runtime.container import ContainerEngine
from .build_model import MIN_HEALTH_S, ModelBuilder
from .check_commands import check_machine, check_shell_syntax
from .check_liveness import check_liveness
from .check_memory import check_memory, check_yields
from .command_line import UnterminatedQuoteError, split_command
from .container_engine import find_engine
from .document.merge import list_files, read_files
from .document.nodes import Mapping, Node, mapping_at, walk
from .document.settings import settings_of
from .document.source import EnvironmentValues, variables
from .expand import DEFAULTED, HOOK_POINTS, Expanded, expand_document
from .lenient import model_at_fault, without_models
from .model_names import Names
from .problem_collector import ProblemCollector
from .problems import ConfigProblems, Problem
from .routing import read_routing
from .schema.document import TOP_KEYS, DocumentSection
from .schema.fields import KeyScope
from .schema.model import ModelSection
from .schema.ollama import problems as problems_of_listener
from .validate import Reader, locate
from .values import ApiKeyEntry, Config, ModelConfig

_CLIENT_KEY = "SWAPCHART_API_KEY"  # for commands that ask a proxy; no model needs it
_NO_MODELS = "there are no models and no peers, so every request for a model gets 404"
_LOG_TIMES = frozenset(
    (
        *("ansic", "unixdate", "rubydate", "rfc822", "rfc822z", "rfc850", "rfc1123", "rfc1123z"),
        *("rfc3339", "rfc3339nano", "kitchen", "stamp", "stampmilli", "stampmicro", "stampnano"),
    )
)
_LEVELS: dict[str, Literal["debug", "info", "warn", "error"]] = {
    "debug": "debug",
    "info": "info",
    "warn": "warn",
    "error": "error",
}


def load_config(
    files: Listing[Path] = (),
    directory: Path | None = None,
    *,
    env: Map[str, str] | None = None,
    ports: Map[str, int] | None = None,
    is_lenient: bool = False,
) -> Config:
    """Load *files* and then the YAML files of *directory*, merged into one configuration.

    Args:
        files: Files, in the order in which they are read.
        directory: Directory whose ``*.yaml`` and ``*.yml`` files are read in order of their names.
        env: Variables for ``${env.X}``; the default is the environment of this process.
        ports: Model id -> port that it keeps across a reload. Other models get the lowest free
            ports from ``startPort`` on. Without it, ports are assigned in the order of the ids.
        is_lenient: A model with an error is refused, with a warning, instead of all of them.

    Raises:
        ConfigProblems: There is at least one error; it carries all problems.
    """
    given = os.environ if env is None else env
    refused: set[str] = set()
    refusals: list[tuple[str, Problem]] = []
    while True:
        config, ids, collector = _load(files, directory, given, ports, refused)
        if not collector.has_errors:
            break
        problems = collector.all()
        errors = [problem for problem in problems if problem.severity == "error"]
        faults = [(model_at_fault(problem, config, ids), problem) for problem in errors]
        found = [(name, problem) for name, problem in faults if name is not None]
        if not is_lenient or len(found) < len(faults):
            raise ConfigProblems([*(problem for _, problem in refusals), *problems])
        refusals += found
        refused.update(name for name, _ in found)
    warnings = [_refusal(name, problem) for name, problem in refusals]
    return replace(config, warnings=(*warnings, *config.warnings))


def _refusal(model: str, problem: Problem) -> Problem:
    message = f"model {model!r} is refused: {problem.message}"
    return replace(problem, severity="warning", message=message)


def check_config(
    files: Listing[Path] = (),
    directory: Path | None = None,
    *,
    env: Map[str, str] | None = None,
    is_here: bool = False,
) -> list[Problem]:
    """Return all errors and warnings that ``load_config`` would find.

    Args:
        files: See ``load_config``.
        directory: See ``load_config``.
        env: See ``load_config``.
        is_here: Warn also of programs and model files that this machine does not have.
    """
    given = os.environ if env is None else env
    return _load(files, directory, given, is_here=is_here)[2].all()


def examine_config(
    files: Listing[Path] = (), directory: Path | None = None, *, is_lenient: bool = False
) -> tuple[Config | None, list[Problem]]:
    """Return a configuration and all problems, of programs and model files of this machine too.

    Files without errors are read once.

    Args:
        files: See ``load_config``.
        directory: See ``load_config``.
        is_lenient: See ``load_config``.

    Returns:
        The configuration, or None if there is an error, and the problems.
    """
    config, _, collector = _load(files, directory, os.environ, is_here=True)
    if not collector.has_errors:
        return config, collector.all()
    if is_lenient:
        with suppress(ConfigProblems):
            config = load_config(files, directory, is_lenient=True)
            return config, [*config.warnings]
    return None, collector.all()


def _load(
    files: Listing[Path],
    directory: Path | None,
    env: Map[str, str],
    ports: Map[str, int] | None = None,
    refused: Collection[str] = (),
    *,
    is_here: bool = False,
) -> tuple[Config, list[str], ProblemCollector]:
    """Return the configuration, of use only without errors, the ids of its models, and problems."""
    collector, environment = ProblemCollector(), EnvironmentValues(env)
    paths = list_files(files, directory, collector)
    root, sources = read_files(paths, environment, collector)
    root = without_models(root, refused)
    models = root.items.get("models")
    ids = [*models.items] if isinstance(models, Mapping) else []
    expanded = expand_document(root, TOP_KEYS, environment, collector, ports)
    reader = Reader(environment, collector)
    texts = {source.name: source.raw for source in sources}
    config = _Builder(reader, expanded, texts, env, is_here=is_here).build()
    settings = {name: settings_of(tree.node) for name, tree in expanded.models.items()}
    config = replace(config, settings=settings)
    if not collector.has_errors and not config.models and not config.peers:
        place = str(paths[0]) if len(paths) == 1 else ""
        collector.warning_at(place, "models", 0, 0, _NO_MODELS)
        config = replace(config, warnings=tuple(collector.all()))
    return config, ids, collector


def _check(
    document: DocumentSection, names: Names, broken: Collection[str], machine: Map[str, str] | None
) -> None:
    """Report keys of several sections that do not go together, and commands that will not work."""
    if "apiKeys" not in broken and "ollama" not in broken:
        for loc, message in problems_of_listener(document.ollama, document.api_keys):
            names.error(loc, message)
    if "memory" not in broken:
        check_memory(document.memory, names)
        check_yields(document.yields, document.memory, names)
        check_liveness(names)
    check_shell_syntax(names)
    if machine is not None:
        check_machine(names, machine)


class _Builder:
    """Builds the configuration.

    Args:
        reader: Reads sections, and collects problems.
        expanded: The document with macros filled in.
        sources: File -> its text.
        machine: Variables of this machine.
        is_here: Programs and files of this machine are to be looked for.
    """

    def __init__(
        self, reader: Reader, expanded: Expanded, sources: dict[str, str],
        machine: Map[str, str], *, is_here: bool,
    ) -> None:  # fmt: skip
        self._machine, self._is_here = machine, is_here
        self._reader, self._collector = reader, reader.collector
        self._expanded, self._sources = expanded, sources

    def build(self) -> Config:
        """Return the configuration; after errors it is only an approximation."""
        document, broken = self._reader.read(DocumentSection, _readable(self._expanded.top), "")
        assert document is not None, broken  # every key has a default
        models, whole = self._models(document)
        is_partial = not whole or bool(broken & {"peers", "selectors", "models"})
        names = Names(self._expanded, models, self._collector, is_partial=is_partial)
        peers, routing = names.read_peers(document), read_routing(document, names)
        selectors = names.read_selectors(document, routing)
        profiles = names.read_profiles(document)
        _check(document, names, broken, self._machine if self._is_here else None)
        return Config(
            models=names.models,
            aliases=names.aliases,
            health_check_timeout=self._health(document),
            unload_timeout=float(document.unload_timeout or 10),
            global_ttl=document.global_ttl,
            start_port=document.start_port,
            log_level=self._log_level(document),
            log_time_format=self._log_time(document),
            log_to_stdout=document.log_to_stdout,
            metrics_max_in_memory=max(0, document.metrics_max_in_memory) or 1000,
            capture_bytes=max(0, document.capture_buffer) << 20,
            store_path=self._store(document),
            session_headers=_session_headers(document),
            performance_every=document.performance.every_s,
            send_loading_state=document.send_loading_state,
            include_aliases_in_list=document.include_aliases_in_list,
            api_keys=tuple(section.key for section in document.api_keys),
            api_key_entries=_api_keys(document),
            allowed_origins=document.allowed_origins,
            allowed_hosts=document.allowed_hosts,
            drop_env=frozenset(document.drop_env) | self._key_variables() | {_CLIENT_KEY},
            trusted_proxies=document.trusted_proxies,
            ollama=document.ollama,
            macros={name: self._reader.plain(node) for name, node in self._expanded.macros.items()},
            profiles=profiles,
            selectors=selectors,
            peers=peers,
            peer_names=names.peer_names,
            ignore_paths=self._ignore_paths(document),
            start_on_get=document.upstream.start_on_get,
            preload=self._preload(document, names),
            routing=routing,
            on_idle=self._on_idle(document, names),
            on_idle_after=document.on_idle_after,
            queue=document.queue,
            memory=document.memory,
            yields=document.yields,
            cluster=document.cluster,
            listeners=document.listeners,
            hook_timeout=document.hook_timeout,
            hook_limit=document.hook_limit,
            tracing=document.tracing,
            keep_lease_s=None if document.keep_models is None else document.keep_models.lease,
            shutdown_timeout=document.shutdown_timeout,
            lifecycle=document.lifecycle,
            warnings=tuple(self._collector.all()),
            sources=self._sources,
        )

    def _models(self, document: DocumentSection) -> tuple[dict[str, ModelConfig], bool]:
        """Return the models, and whether all of them and all their names are valid."""
        models = {}
        engine = self._engine(document)
        whole = len(self._expanded.models) == self._expanded.defined
        for name, tree in self._expanded.models.items():
            section, broken = self._reader.read(ModelSection, tree.node, f"models.{name}")
            whole &= section is not None and broken.isdisjoint({"aliases", "filters"})
            if section is not None:
                models[name] = ModelBuilder(self._reader, tree, document, engine).build(section)
        return models, whole

    def _engine(self, document: DocumentSection) -> ContainerEngine:
        """Return the engine that runs containers."""
        command = document.container_engine
        try:
            argv = split_command(command) if isinstance(command, str) else command
        except UnterminatedQuoteError as error:
            argv = ()
            message = f"unterminated quote: expected another {error.quote}"
            self._collector.error(*self._at("containerEngine"), message)
        return find_engine(argv, self._machine)

    def _key_variables(self) -> frozenset[str]:
        """Return the variables that hold API keys, used directly or through a macro."""
        keys = self._expanded.top.items.get("apiKeys")
        texts = () if keys is None else (str(scalar.value) for _, scalar in walk(keys))
        return frozenset(name for text in texts for name in variables(text))

    def _at(self, *loc: int | str) -> tuple[Node, str]:
        return locate(self._expanded.top, "", loc)

    def _health(self, document: DocumentSection) -> float:
        if document.health_check_timeout < MIN_HEALTH_S:
            message = f"raised to {MIN_HEALTH_S}, the least that is allowed"
            self._collector.warning(*self._at("healthCheckTimeout"), message)
        return float(max(MIN_HEALTH_S, document.health_check_timeout))

    def _log_level(self, document: DocumentSection) -> Literal["debug", "info", "warn", "error"]:
        level = document.log_level.strip().lower()
        if level not in _LEVELS:
            message = f"expected debug, info, warn or error, found {level!r}: info is used"
            self._collector.warning(*self._at("logLevel"), message)
        return _LEVELS.get(level, "info")

    def _log_time(self, document: DocumentSection) -> str:
        name = document.log_time_format.strip().lower()
        if name and name not in _LOG_TIMES:
            known = ", ".join(sorted(_LOG_TIMES))
            message = f"expected one of {known}; found {name!r}: no time is logged"
            self._collector.warning(*self._at("logTimeFormat"), message)
        return name if name in _LOG_TIMES else ""

    def _store(self, document: DocumentSection) -> str | None:
        if document.store is None:
            return None
        path = Path(document.store.path)
        problem = None
        if path.is_dir():
            problem = "expected a file, found a directory"
        elif path.exists():
            problem = None if os.access(path, os.W_OK) else "expected a writable file"
        elif not path.parent.is_dir():
            problem = "expected a file in a directory that exists"
        elif not os.access(path.parent, os.W_OK):
            problem = "expected a file in a writable directory"
        if problem:
            self._collector.error(*self._at("store", "path"), problem)
        return document.store.path

    def _ignore_paths(self, document: DocumentSection) -> tuple[re.Pattern[str], ...]:
        default = type(document.upstream)().ignore_paths
        patterns = []
        for index, text in enumerate(document.upstream.ignore_paths or default):
            try:
                patterns.append(re.compile(text))
            except (re.error, OverflowError, RecursionError) as error:
                at = self._at("upstream", "ignorePaths", index)
                self._collector.error(*at, f"invalid regular expression: {error}")
        return tuple(patterns)

    def _preload(self, document: DocumentSection, names: Names) -> tuple[str, ...]:
        models = []
        for index, name in enumerate(document.hooks.on_startup.preload):
            model = names.real_name(name.strip())
            if model is not None:
                models.append(model)
            elif name.strip():
                loc = ("hooks", "on_startup", "preload", index)
                names.warning(loc, f"unknown model {name!r} is not preloaded")
        return tuple(models)

    def _on_idle(self, document: DocumentSection, names: Names) -> str | None:
        model = names.real_name(document.on_idle)
        if document.on_idle and model is None:
            names.unknown(("onIdle",), document.on_idle)
        return model


def _readable(top: Mapping) -> Mapping:
    """Return *top* without defaults that refer to macros of a model."""
    items = {
        key: node for key, node in top.items.items() if key not in DEFAULTED or _is_final(node)
    }
    hooks = items.get("hooks")
    if isinstance(hooks, Mapping):
        items["hooks"] = mapping_at(
            hooks,
            {k: n for k, n in hooks.items.items() if k not in HOOK_POINTS or _is_final(n)},
        )
    return mapping_at(top, items)


def _is_final(node: Node) -> bool:
    return not any("${" in str(scalar.value) for _, scalar in walk(node))


def _api_keys(document: DocumentSection) -> tuple[ApiKeyEntry, ...]:
    return tuple(
        ApiKeyEntry(
            key=section.key,
            scopes=frozenset(section.scopes or _scopes(section.models)),
            models=None if section.models is None else frozenset(section.models),
            name=section.name,
        )
        for section in document.api_keys
    )


def _scopes(models: tuple[str, ...] | None) -> tuple[KeyScope, ...]:
    """Return the scopes of a key that names none: a key for some models may only infer."""
    return ("infer", "admin") if models is None else ("infer",)


def _session_headers(document: DocumentSection) -> tuple[str, ...]:
    headers: dict[str, str] = {}
    for name in document.ui.activity.session_id:
        if name.strip():
            headers.setdefault(name.strip().lower(), name.strip())
    return tuple(headers.values())
