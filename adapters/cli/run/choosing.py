"""Resolution of `swapchart run MODEL`: a model file, or a model of a proxy or of a search."""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ....dataclass import dataclass
from ..defaults import (
    NoConfigurationError,
    choose_configuration,
    configuration_sources,
    proxy_url,
)
from ..remote.client import ApiError, Proxy, reading

if TYPE_CHECKING:
    from ...config import Config
    from ...discovery import Found, PlannedModel

_READY_LIMIT_S = 3600  # a user who waits at a terminal decides; 120 s are too short for some models


class RunError(Exception):
    """The model cannot be served; the text says why and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A model, and the proxy or the configuration that serves it.

    Attributes:
        model: Name of the model in requests.
        proxy: Running proxy that has it; None means that one has to be started.
        options: Options of `serve` that name the configuration; empty if `document` is one.
        document: Configuration to write, with this model alone.
        key: API key that the configuration asks for; None means that it asks for none.
        refusal: Why a running proxy could not be asked for the model; empty if that is not known.
    """

    model: str
    proxy: Proxy | None = None
    options: Sequence[str] = ()
    document: Mapping[str, Any] | None = None
    key: str | None = None
    refusal: str = ""


def choose(options: Namespace) -> Choice:
    """Return what ``options.model`` means.

    A path is a file. A name is looked for in a running proxy, in the configuration, and in the
    store of Ollama, in this order; then it may be the name of a file. With ``--url`` or
    ``--config`` only that place is asked.

    Raises:
        RunError: No model is meant, or it cannot be served here.
        ApiError: The proxy of ``--url`` does not respond.
    """
    name = options.model
    if _is_path(name):
        return _of_file(Path(name).expanduser(), options.engine)
    if options.engine == "vllm" and not Path(name).exists():
        return _of_search(_nothing(), "vllm", [name])
    is_anywhere = options.url is None and not options.config
    search = _Search(name, options.api_key, is_optional=is_anywhere)
    if not options.config:
        search.in_proxy(options.url or proxy_url())
    if options.url is None:
        search.in_configuration(options)
    if is_anywhere:
        search.in_ollama()
    if search.choice is not None:
        return search.choice
    if is_anywhere and Path(name).exists():
        return _of_file(Path(name), options.engine)
    raise RunError(search.failure())


def _is_path(name: str) -> bool:
    return name.lower().endswith(".gguf") or name.startswith(("/", ".", "~"))


class _Search:
    """A search for a name; the first place that has it decides.

    Args:
        name: The name.
        key: API key for proxies; None means none.
        is_optional: A place that cannot be searched is no error, because there are others.

    Attributes:
        choice: What was found; None before.
    """

    def __init__(self, name: str, key: str | None, *, is_optional: bool) -> None:
        self.choice: Choice | None = None
        self._refusal = ""
        self._name, self._key, self._is_optional = name, key, is_optional
        self._known: list[str] = []
        self._places = ["no such file"] if is_optional else []

    def in_proxy(self, url: str) -> None:
        """Ask the proxy at *url*.

        Raises:
            ApiError: It does not respond, and is the only place.
        """
        proxy = Proxy(url, self._key)
        try:
            rows = proxy.get("/v1/models", "data")["data"]
        except ApiError as error:
            if not self._is_optional:
                raise
            self._refusal = str(error) if error.status in (401, 403) else ""
            outcome = "cannot be asked" if error.status else "does not respond"
            self._places.append(f"the proxy at {proxy.url} {outcome}")
            return
        with reading(proxy.url):
            metas = (row.get("meta", {}).get("llamaswap", {}) for row in rows)
            names = [name for meta in metas for name in meta.get("aliases", ())]
            names += [row["id"] for row in rows]
        if self._has(names, f"the proxy at {proxy.url}"):
            self.choice = Choice(model=self._name, proxy=proxy)

    def in_configuration(self, options: Namespace) -> None:
        """Look into the configuration that `serve` would take.

        Raises:
            RunError: It cannot be used, and is the only place.
        """
        if self.choice is not None:
            return
        try:
            choose_configuration(options)
        except NoConfigurationError:
            self._places.append("there is no configuration")
            return
        from ...config import ConfigProblems, load_config

        sources = ", ".join(map(str, configuration_sources(options)))
        try:
            config = load_config(options.config, options.config_dir)
        except ConfigProblems as error:
            first = next(each for each in error.problems if each.severity == "error")
            if self._is_optional:
                self._places.append(f"{sources} cannot be used")
                return
            raise RunError(str(first)) from error
        if self._has([*config.models, *config.aliases], sources):
            arguments = [word for path in options.config for word in ("--config", str(path))]
            if options.config_dir:
                arguments += ["--config-dir", str(options.config_dir)]
            key = self._key or _key(config, sources)
            self.choice = Choice(
                model=self._name, options=arguments, key=key, refusal=self._refusal
            )

    def in_ollama(self) -> None:
        """Look into the store of Ollama.

        Raises:
            RunError: It has the model, which cannot be served.
        """
        if self.choice is not None:
            return
        from ...discovery import Found, find_ollama_models, ollama_stores

        store = ollama_stores(os.environ, Path.home())[0]
        if not (store / "manifests").is_dir():
            self._places.append("there is no store of Ollama")
            return
        found = find_ollama_models(store)
        models = {name: each for each in found.models for name in (each.full_name, each.name)}
        if self._has([name for name in models if name], "the store of Ollama"):
            self.choice = _of_search(Found([models[self._name]]), None)
        for left in found.left:
            if left.reason.startswith((f"{self._name}: ", f"{self._name}:latest: ")):
                raise RunError(left.reason)

    def _has(self, names: Iterable[str], place: str) -> bool:
        self._places.append(f"{place} does not have it")
        self._known += names
        return self._name in self._known

    def failure(self) -> str:
        """Return the message about a name that no place has."""
        import difflib

        close = difflib.get_close_matches(self._name, self._known, n=1)
        part = self._name.casefold()
        close = close or [name for name in self._known if part and part in name.casefold()]
        guess = f"; did you mean {close[0]!r}?" if close else ""
        return f"model not found: {self._name!r}: {', '.join(self._places)}{guess}"


def _key(config: Config, sources: str) -> str | None:
    """Return a key with which the model can be loaded and asked; None if none is required."""
    if not config.api_keys:
        return None
    for entry in config.api_key_entries:
        text = entry.key.get_secret_value()
        if entry.scopes >= {"infer", "admin"} and entry.models is None and ":" not in text:
            return text
    raise RunError(f"{sources} requires an API key: give it by --api-key or SWAPCHART_API_KEY")


def _nothing() -> Found:
    from ...discovery import Found

    return Found()


def _of_file(path: Path, engine: str | None) -> Choice:
    from ...discovery import find_models
    from ...llama_cpp.gguf import shards

    try:
        path = path.resolve(strict=True) if path.is_dir() else shards(path.absolute())[0]
        path.lstat()
        found = find_models([path])
    except OSError as error:
        raise RunError(f"{error.filename or path}: {error.strerror}") from error
    if not found.models:
        left = next(iter(found.left), None)
        if left is not None:
            raise RunError(f"{left.path}: {left.reason}")
        raise RunError(f"{path}: no model was found there")
    if len(found.models) > 1:
        names = ", ".join(str(each.path) for each in found.models[:3])
        raise RunError(
            f"expected one model in {path}, found {len(found.models)}; name one, such as: {names}"
        )
    return _of_search(found, engine)


def _of_search(found: Found, engine: str | None, ids: Sequence[str] = ()) -> Choice:
    """Return the choice of the only model of *found*, or of the only one of *ids*, for vLLM."""
    from ...discovery import Role, find_engines, plan_models
    from ..init import machine_room

    engines = find_engines()
    planned = plan_models(found, engines, machine_room()[0], ids)
    if not planned:
        raise RunError(f"{found.left[0].path}: {found.left[0].reason}")
    model = planned[0].model
    name, needed = model.path, "llama-server" if model.head is not None else "vllm"
    if engine not in (None, needed):
        raise RunError(f"{name}: {engine} cannot serve it; leave --engine out for {needed}")
    if (engines.llama_server if needed == "llama-server" else engines.vllm) is None:
        raise RunError(f"{name} needs {needed}, which is not in PATH; install it first")
    if model.role is not Role.CHAT:
        raise RunError(f"{name}: a model for {model.role.value}; expected one that chats")
    return Choice(model=model.name, document=_document(planned[0]))


def _document(planned: PlannedModel) -> dict[str, Any]:
    from ...discovery.planning import PORT

    argv = [word if word == PORT else word.replace("${", "$${") for word in planned.argv]
    return {
        "startPort": _free_port(), "healthCheckTimeout": _READY_LIMIT_S,
        "models": {planned.model.name: {"cmd": argv}},
    }  # fmt: skip


def _free_port() -> int:
    """Return a port that no program uses now.

    It is below those that the kernel gives to connections, of which one could take it before the
    model does, and above those that proxies take from `startPort` on.
    """
    import random
    import socket

    for port in random.sample(range(20_000, 30_000), 100):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise RunError("no free port was found between 20000 and 30000")
