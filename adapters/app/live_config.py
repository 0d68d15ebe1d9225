"""Configuration in force, and the transaction that replaces it: all of it at once, or nothing.

Everything that can fail (reading, checking, compiling) happens before, in a thread. The result is
then swapped in within one step of the event loop, so that no request sees a mixture.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, TypeAlias

import anyio

from ...dataclass import dataclass
from ...runtime import (
    EvictionPolicy,
    QueueLimits,
    RequestError,
    ServiceSpec,
    Supervisor,
    SwapchartError,
    compare,
)
from ...runtime.autostart import reason_against
from ...runtime.spec_diff import with_live
from ..config import Config, ConfigProblems, ModelConfig, Problem
from ..proxy.context import ProxyContext
from ..proxy.models.catalog import ModelCatalog
from ..proxy.options import ProxyOptions
from ..system import threads
from .chart_setup import chart
from .config_files import ConfigFiles, Signature
from .proxy_setup import model_catalog, proxy_options
from .reload_plan import ReloadPlan, plan
from .reloader import Reloader, in_place, problem_json, problems_of
from .service_setup import eviction_policy, queue_limits, service_spec
from .shutdown_timeout import stop_limit_s

log = logging.getLogger(__name__)

#: (model, its service) -> the same service with the hooks that the program itself adds.
AddHooks: TypeAlias = Callable[[ModelConfig, ServiceSpec], ServiceSpec]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Prepared:
    config: Config
    policy: EvictionPolicy
    queue: QueueLimits
    model_catalog: ModelCatalog
    options: ProxyOptions


def without_hooks(model: ModelConfig, spec: ServiceSpec) -> ServiceSpec:
    """Return *spec* unchanged."""
    return spec


class LiveConfig:
    """Configuration of a running proxy.

    Args:
        config: Configuration at the start; *services* and *proxy* were made from it.
        services: Services of all its models.
        supervisor: Runs the services.
        proxy: Serves the requests.
        sources: Files that *config* was read from; None means that it cannot be read again.
        seen: Signature of *sources* before *config* was read.
        add_hooks: Adds the program's own hooks to a service.
        before_change: Called with each later configuration, before its models are made.
        make_service: Makes the service of a model, without the program's own hooks.
        prepare: Called with each later configuration in a thread, before anything changes.
        find_lost: Returns what no longer fits into memory by another configuration, in words.
        on_change: Called with each later configuration once it is in force.
        must_have_keys: Reject a configuration without `apiKeys`, because other machines can reach
            the proxy.
        has_own_stop_limit: The shutdown limit was given on the command line.

    Attributes:
        config: Configuration in force.
        seen: Signature of the files that were read last, in force or not.
        reloader: Runs one reload at a time.
        held_back: Message and command for a change that waits for an explicit reload, or for the
            program that has the file open; None means there is none.
    """

    def __init__(
        self, config: Config, services: Sequence[ServiceSpec], supervisor: Supervisor,
        proxy: ProxyContext, *, sources: ConfigFiles | None = None, seen: Signature = (),
        add_hooks: AddHooks = without_hooks,
        on_change: Callable[[Config], None] = lambda config: None,
        before_change: Callable[[Config], None] = lambda config: None,
        make_service: Callable[[ModelConfig], ServiceSpec] = service_spec,
        prepare: Callable[[Config], None] = lambda config: None,
        find_lost: Callable[[Config, Config], Sequence[str]] = lambda old, new: (),
        must_have_keys: bool = False, has_own_stop_limit: bool = False,
    ) -> None:  # fmt: skip
        self.config, self.seen = config, seen
        self._services = {spec.name: spec for spec in services}
        self._supervisor, self._proxy = supervisor, proxy
        self._sources, self._add_hooks, self._on_change = sources, add_hooks, on_change
        self._before_change, self._make_service = before_change, make_service
        self._prepare_parts, self._find_lost = prepare, find_lost
        self._must_have_keys, self._has_own_stop_limit = must_have_keys, has_own_stop_limit
        self._ports = ports_of(config)
        self.held_back: dict[str, Any] | None = None
        self.reloader = Reloader(self._change)
        self.reloader.listen(lambda report: self._publish())
        proxy.config = self

    def begin(self) -> None:
        """Start what the configuration asks for at the start: preloads and the idle model."""
        self._supervisor.idle_loader.configure(self.config.on_idle, self.config.on_idle_after)
        self._preload(self.config.preload)
        self._watch_external(self.config.models)

    # ---- what the API asks for
    def facts(self) -> dict[str, Any]:
        """Return the paths of the configuration and the outcome of the last reload."""
        last = self.reloader.last
        return {
            "files": list(self.config.sources),
            "models": list(self.config.models),
            "warnings": [problem_json(problem) for problem in self.config.warnings],
            "reloads": self.reloader.count,
            "last_reload": None if last is None else last.as_json(),
            "held_back": self.held_back,
        }

    def settings(self, model: str) -> list[dict[str, Any]]:
        """Return the settings of *model* in force, each with its file and line."""
        return [setting._asdict() for setting in self.config.settings.get(model, ())]

    async def plan(self) -> dict[str, Any]:
        """Read the configuration again and return what a reload would change.

        Raises:
            ConfigProblems: It has an error.
            ConfigError: Its changes to the chart have an error.
        """
        prepared = await threads.run(self._prepare, self._ports_in_use())
        return self._planned(prepared.config).as_json()

    def problems(self, error: SwapchartError) -> list[dict[str, Any]]:
        """Return the problems that *error*, raised by `plan`, contains."""
        return [problem_json(problem) for problem in problems_of(error)]

    async def reload(self, why: str) -> dict[str, Any]:
        """Read the configuration again, apply it, and return the report.

        Raises:
            ReloadClosedError: The proxy is shutting down.
        """
        return (await self.reloader.reload(why)).as_json()

    def hold_back(self, path: str) -> None:
        """Log that the changed file at *path* is not read while a program has it open."""
        command = f"kill -HUP {os.getpid()}"
        message = (
            f"{path} was changed and is still open for writing in another program: it is read when "
            f"that program closes it. If it is complete, reload: {command}, or swapchart config "
            "reload"
        )
        log.warning("%s", message)
        self.held_back = {"message": message, "removed": [], "command": command}
        self._publish()

    def _publish(self) -> None:
        self._proxy.event_bus.publish("config", {"held_back": self.held_back})
        if self._proxy.change_publisher is not None:
            self._proxy.change_publisher.models_changed()

    # ---- the change
    async def _change(self) -> tuple[ReloadPlan, Sequence[Problem]]:
        if self._sources is None:
            raise _problem("", "the configuration was not read from a file")
        before = self.seen
        self.seen = await threads.run(self._sources.signature)  # before it is read
        self.held_back = None
        prepared = await threads.run(self._prepare, self._ports_in_use())
        self._check_whole(prepared.config, in_place(before, self.seen))
        return self._apply(prepared), prepared.config.warnings

    def _check_whole(self, new: Config, written: Sequence[str]) -> None:
        """Reject a configuration that looks truncated.

        Args:
            new: Read without an error.
            written: Files that were written in place since they were read before.

        Raises:
            ConfigProblems: A file that had models is empty; or more than half of the models are
                gone, a file was written in place, and the reload was not requested explicitly.
        """
        old = self.config
        gone = [name for name in old.models if name not in new.models]
        empty = [
            name
            for name, text in new.sources.items()
            if gone and _is_blank(text) and not _is_blank(old.sources.get(name, ""))
        ]
        if empty:
            raise ConfigProblems([
                Problem(
                    file=name, path="", line=0, column=0,
                    message="it is empty where models were; to remove them all, write `models: {}`",
                )
                for name in empty
            ])  # fmt: skip
        if self.reloader.is_asked_for or not written or 2 * len(gone) <= len(old.models):
            return
        command = f"kill -HUP {os.getpid()}"
        message = (
            f"{len(gone)} of {len(old.models)} models are gone, and the file was written in place: "
            f"it may be half-written, so nothing is changed. If it is meant so, reload: {command}, "
            "or swapchart config reload"
        )
        self.held_back = {"message": message, "removed": gone, "command": command}
        raise _problem("models", message, written[0])

    def _prepare(self, ports: Mapping[str, int]) -> _Prepared:
        if self._sources is None:
            raise _problem("", "the configuration was not read from a file")
        config = self._sources.load(ports)
        if self._must_have_keys and not config.api_keys:
            raise _problem(
                "apiKeys", "expected at least one, since other machines can reach this address"
            )
        if config.lifecycle != self.config.lifecycle:
            chart(config)
        for model in config.models.values():
            service_spec(model)
        self._prepare_parts(config)
        options = proxy_options(config)
        return _Prepared(
            config=config,
            policy=eviction_policy(config),
            queue=queue_limits(config),
            model_catalog=model_catalog(config),
            options=replace(options, instance_id=self._proxy.options.instance_id),
        )

    def _apply(self, new: _Prepared) -> ReloadPlan:
        """Swap everything without waiting, so that no other task runs in between."""
        old, config, supervisor = self.config, new.config, self._supervisor
        planned = self._planned(config)
        self._before_change(config)
        services = {
            name: self._service(old.models.get(name), model)
            for name, model in config.models.items()
        }
        supervisor.apply(
            services.values(), policy=new.policy, queue=new.queue,
            cause="its configuration changed",
        )  # fmt: skip
        if not self._has_own_stop_limit:
            supervisor.stop_limit_s = stop_limit_s(config)
        supervisor.hook_limiter.limit = config.hook_limit
        supervisor.idle_loader.configure(config.on_idle, config.on_idle_after)
        self._proxy.configure(new.model_catalog, new.options)
        if config.log_level != old.log_level:
            set_log_level(config.log_level)
        self._ports = {**self._ports_in_use(), **ports_of(config)}
        self.config, self._services = config, services
        self._on_change(config)
        self._preload([name for name in config.preload if name not in old.models])
        self._watch_external(config.models.keys() - old.models.keys())
        return planned

    def _service(self, old: ModelConfig | None, new: ModelConfig) -> ServiceSpec:
        """Return *new* as a service; ports and hooks of *old* stay where *new* allows it."""
        before, spec = self._services.get(new.id), self._make_service(new)
        if old is None or before is None or old.kv != new.kv:
            return self._add_hooks(new, spec)
        is_kept = compare(self._make_service(old), spec) in ("same", "live")
        return with_live(before, spec) if is_kept else self._add_hooks(new, spec)

    def _planned(self, new: Config) -> ReloadPlan:
        lost = self._find_lost(self.config, new)
        return plan(self.config, new, self._states(), memory=lost)

    def _states(self) -> dict[str, str]:
        return {life.spec.name: life.state for life in self._supervisor.lifecycles()}

    def _ports_in_use(self) -> dict[str, int]:
        """Return the ports of all models, including those that are being removed."""
        names = {*self.config.models, *(life.spec.name for life in self._supervisor.lifecycles())}
        return {name: port for name, port in self._ports.items() if name in names}

    # ---- preloading
    def _preload(self, names: Sequence[str]) -> None:
        if names:
            self._supervisor.spawn(self._load_all, tuple(names))

    def _watch_external(self, names: Iterable[str]) -> None:
        """Start to probe the external servers among *names* that no command starts."""
        for name in names:
            model = self.config.models[name]
            if model.external and not model.argv:
                self._supervisor.spawn(self._watch, name)

    async def _watch(self, name: str) -> None:
        with suppress(KeyError, RequestError):  # removed; not there, which is probed again
            await self._supervisor.load(name)

    async def _load_all(self, names: Sequence[str]) -> None:
        """Load the models one after the other; a failure does not stop the rest.

        With memory, what does not fit beside the earlier ones is left out, and evicts none.
        """
        scheduler = self._supervisor.scheduler
        for name in names:
            decides = scheduler.memory is not None and scheduler.memory.decides
            if decides and name in scheduler.services:
                why = reason_against(scheduler, name, anyio.current_time())
                if why:
                    log.warning("%s is not preloaded: %s", name, why)
                    continue
            try:
                await self._supervisor.load(name, cause="preload")
            except KeyError:
                log.warning("%s was removed before it was preloaded", name)
            except RequestError as error:
                if error.code == "shutting_down":
                    return
                log.warning("failed to preload %s: %s", name, error)
            else:
                log.info("preloaded %s", name)


def ports_of(config: Config) -> dict[str, int]:
    """Return the port of each model that was given one."""
    return {model.id: model.port for model in config.models.values() if model.port is not None}


def set_log_level(level: str) -> None:
    """Set the log level: debug, info, warn or error."""
    number = logging.WARNING if level == "warn" else getattr(logging, level.upper())
    logging.getLogger().setLevel(number)
    logging.getLogger("httpx").setLevel(max(number, logging.WARNING))


def _is_blank(text: str) -> bool:
    """Return True if *text* has nothing but blanks, comments and document marks."""
    lines = (line.partition("#")[0].strip() for line in text.splitlines())
    return all(line in ("", "---", "...") for line in lines)


def _problem(path: str, message: str, file: str = "") -> ConfigProblems:
    return ConfigProblems([Problem(file=file, path=path, line=0, column=0, message=message)])
