"""Plan of a reload: the differences between two configurations, and the effect of each. Pure.

`swapchart config plan`, the API and the log show the same plan. ``Supervisor.apply`` compares by
the same rule.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import fields, replace
from typing import Any, Literal, TypeAlias

from ...dataclass import dataclass
from ...runtime import Difference, compare
from ..config import Config, ModelConfig
from ..config.expand import HOOK_POINTS
from ..kv.manager import adds_folder
from .kv_setup import kv_settings
from .service_setup import service_spec

#: Kind of change to a service, and models that are added or removed.
ModelChangeKind: TypeAlias = Literal["live", "next_start", "restart", "added", "removed"]

_AT_REST = frozenset({"", "stopped", "backoff", "tripped", "half_open"})

#: Field of a model -> its key in the configuration; all others are the same in camelCase.
_KEYS = {
    "cmd": "cmd", "argv": "cmd", "stop_argv": "cmdStop",
    "check_url": "checkEndpoint", "environment": "env",
    "ignore_websockets": "compat",
}  # fmt: skip

#: Fields of a model that its container determines.
_OF_COMMAND = frozenset({"cmd", "argv", "container", "pull"})

#: Settings that are read once, at the start of the proxy -> their keys.
_AT_START = {
    "cluster": "cluster", "lifecycle": "lifecycle", "store_path": "store",
    "metrics_max_in_memory": "metricsMaxInMemory", "keep_lease_s": "keepModels",
    "tracing": "tracing",
}  # fmt: skip
#: Settings that apply at once -> their keys.
_AT_ONCE = {
    "log_level": "logLevel", "log_to_stdout": "logToStdout", "session_headers": "ui",
    "include_aliases_in_list": "includeAliasesInList", "api_key_entries": "apiKeys",
    "allowed_origins": "allowedOrigins", "allowed_hosts": "allowedHosts",
    "drop_env": "dropEnv",
    "trusted_proxies": "trustedProxies", "profiles": "profiles", "selectors": "selectors",
    "peers": "peers", "ignore_paths": "upstream", "start_on_get": "upstream",
    "preload": "hooks.on_startup.preload",
    "routing": "routing", "on_idle": "onIdle", "on_idle_after": "onIdleAfter", "queue": "queue",
    "listeners": "listeners", "ollama": "ollama", "memory": "memory", "yields": "yield",
    "shutdown_timeout": "shutdownTimeout", "hook_limit": "hookLimit",
    "log_time_format": "logTimeFormat", "capture_bytes": "captureBuffer",
    "performance_every": "performance",
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelChange:
    """Change of one model.

    Attributes:
        id: Id of the model.
        kind: Kind of change; see `Difference`.
        keys: Keys that changed, without values; empty for models that are added or removed.
        state: State of its lifecycle; empty if unknown.
    """

    id: str
    kind: ModelChangeKind
    keys: tuple[str, ...] = ()
    state: str = ""

    @property
    def effect(self) -> str:
        """Effect of the change, in words."""
        if self.kind == "added":
            return "starts on demand"
        is_at_rest = self.state in _AT_REST
        if self.kind == "removed":
            if is_at_rest:
                return "is removed; requests for it get 404"
            return "drains and stops; queued requests are rejected"
        if self.kind == "live" or (self.state and is_at_rest):
            return "applies at once"
        if self.kind == "next_start":
            return "applies at its next start; the running process keeps what it has"
        return "drains and stops if it runs; the next request starts it again"

    def __str__(self) -> str:
        """Return the change as one line."""
        mark = {"added": "+", "removed": "-"}.get(self.kind, "~")
        what = f" ({', '.join(self.keys)})" if self.keys else ""
        return f"{mark} {self.id}{what}: {self.effect}"


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingChange:
    """Change of a setting of the proxy.

    Attributes:
        key: Its key.
        is_late: It takes effect only at the next start of the proxy.
    """

    key: str
    is_late: bool = False

    def __str__(self) -> str:
        """Return the change as one line."""
        when = "applies when swapchart is started again" if self.is_late else "applies at once"
        return f"~ {self.key}: {when}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReloadPlan:
    """Differences between two configurations.

    Attributes:
        models: Changed models in the order of the new configuration, removed ones last.
        unchanged: Ids of the models that do not change.
        settings: Other changes.
        memory: Models that no longer fit into memory, alone or together, in words.
    """

    models: tuple[ModelChange, ...] = ()
    unchanged: tuple[str, ...] = ()
    settings: tuple[SettingChange, ...] = ()
    memory: tuple[str, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Return True if nothing changes."""
        return not (self.models or self.settings)

    def __str__(self) -> str:
        """Return the plan as lines, as the command line shows it."""
        count = len(self.unchanged)
        kept = f"{count} model{'' if count == 1 else 's'} unchanged"
        if self.is_empty:
            return f"nothing changes; {kept}"
        lost = [f"! {line}" for line in self.memory]
        return "\n".join([*map(str, self.models), *map(str, self.settings), *lost, kept])

    def as_json(self) -> dict[str, Any]:
        """Return the plan as the API's JSON value."""
        return {
            "changed": not self.is_empty,
            "models": [
                {
                    "id": change.id,
                    "change": change.kind,
                    "keys": list(change.keys),
                    "state": change.state,
                    "effect": change.effect,
                }
                for change in self.models
            ],
            "unchanged": list(self.unchanged),
            "settings": [
                {"key": change.key, "applies": "restart" if change.is_late else "now"}
                for change in self.settings
            ],
            "memory": list(self.memory),
            "text": str(self),
        }


def plan(
    old: Config, new: Config, states: Mapping[str, str] | None = None, *,
    memory: Sequence[str] = (),
) -> ReloadPlan:  # fmt: skip
    """Return the effect of replacing *old* by *new*.

    Args:
        old: Configuration in force; *new* was loaded with its ports.
        new: Configuration that replaces it.
        states: Model id -> innermost state of its lifecycle; None means unknown.
        memory: Models that no longer fit into memory, in words; see `lost_combinations`.
    """
    states = states or {}
    changes: list[ModelChange] = []
    unchanged: list[str] = []
    for name, model in new.models.items():
        state = states.get(name, "")
        before = old.models.get(name)
        if before is None:
            changes.append(ModelChange(id=name, kind="added", state=state))
            continue
        kind = difference(before, model)
        if kind == "same":
            unchanged.append(name)
        else:
            keys = changed_keys(before, model)
            changes.append(ModelChange(id=name, kind=kind, keys=keys, state=state))
    changes += [
        ModelChange(id=name, kind="removed", state=states.get(name, ""))
        for name in old.models
        if name not in new.models
    ]
    both = old.models.keys() & new.models.keys()
    settings = [
        SettingChange(key=key, is_late=names is _AT_START)
        for names in (_AT_ONCE, _AT_START)
        for name, key in names.items()
        if _setting(old, name, both) != _setting(new, name, both)
    ]
    return ReloadPlan(
        models=tuple(changes), unchanged=tuple(unchanged), settings=tuple(settings),
        memory=tuple(memory),
    )  # fmt: skip


def _setting(config: Config, name: str, both: Set[str]) -> object:
    """Return a setting; of groups only what concerns models that both configurations have."""
    value = getattr(config, name)
    if name != "routing":
        return value
    routing = config.routing
    groups = {
        group.id: replace(group, members=tuple(m for m in group.members if m in both))
        for group in routing.groups.values()
    }
    return replace(routing, groups={name: group for name, group in groups.items() if group.members})


def difference(old: ModelConfig, new: ModelConfig) -> Difference:
    """Return what turning the model *old* into *new* takes."""
    if old == new:
        return "same"
    kind = compare(service_spec(old), service_spec(new))
    if kind != "restart" and old.kv != new.kv:
        # KV adds hooks to the service and a folder to its command.
        return "restart" if _kv_argument(old) != _kv_argument(new) else "next_start"
    return "live" if kind == "same" else kind


def _kv_argument(model: ModelConfig) -> object:
    """Return what determines the folder that KV adds to the command; None means no folder."""
    settings = kv_settings(model)
    if settings is None or not adds_folder(service_spec(model), settings):
        return None
    return settings.directory, settings.tmpfs


def changed_keys(old: ModelConfig, new: ModelConfig) -> tuple[str, ...]:
    """Return the keys whose values differ, each once, in the order of the model."""
    return tuple(dict.fromkeys(_changed_keys(old, new)))


def _changed_keys(old: ModelConfig, new: ModelConfig) -> Iterable[str]:
    for field in fields(ModelConfig):
        before, after = getattr(old, field.name), getattr(new, field.name)
        if not field.compare or before == after:
            continue
        if field.name in _OF_COMMAND and (old.container or new.container):
            yield from _container_keys(old, new)
        elif field.name == "hooks":
            points = (p for p in {**before, **after} if before.get(p) != after.get(p))
            yield from (p if p in HOOK_POINTS else f"hookPoints.{p}" for p in points)
        else:
            yield _KEYS.get(field.name) or _camel(field.name)


def _container_keys(old: ModelConfig, new: ModelConfig) -> Iterable[str]:
    """Yield the keys of a container that differ; the same key may come several times."""
    before, after = old.container, new.container
    if before is None or after is None:
        yield from ("cmd", "container")
        return
    if old.argv != new.argv:
        yield "container.args"
    if before.engine != after.engine:
        yield "containerEngine"
    if old.pull != new.pull and before.engine == after.engine and before.image == after.image:
        yield "container.pull"
    for field in fields(before):
        if field.name != "engine" and getattr(before, field.name) != getattr(after, field.name):
            key = {"gpu_count": "gpus", "publish": "port"}.get(field.name, _camel(field.name))
            yield f"container.{key}"


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)
