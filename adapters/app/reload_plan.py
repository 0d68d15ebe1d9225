"""What a new configuration would change, said before anything is done. Pure.

`swapchart config plan`, the API and the log all tell the same plan; what is then done is
``Supervisor.apply``, which compares by the same rule.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, TypeAlias

from ...runtime import Difference, compare
from ..config import Config, ModelConfig
from ..config.expand import HOOK_POINTS
from ..kv.manager import adds_folder
from .kv_setup import kv_settings
from .service_setup import service_spec

#: As the runtime sees it, and models that come or go.
ModelChangeKind: TypeAlias = Literal["live", "next_start", "restart", "added", "removed"]

_AT_REST = frozenset({"", "stopped", "backoff", "tripped", "half_open"})

#: Field of a model -> the key that its author knows; others are the same in camelCase.
_KEYS = {
    "cmd": "cmd", "argv": "cmd", "stop_argv": "cmdStop",
    "check_url": "checkEndpoint", "environment": "env",
    "ignore_websockets": "compat",
}  # fmt: skip

#: Settings that are read once, when the proxy starts -> their keys.
_AT_START = {
    "lifecycle": "lifecycle", "store_path": "store", "metrics_max_in_memory": "metricsMaxInMemory",
}  # fmt: skip
#: Settings that apply at once -> their keys.
_AT_ONCE = {
    "log_level": "logLevel", "log_to_stdout": "logToStdout", "session_headers": "ui",
    "include_aliases_in_list": "includeAliasesInList", "api_key_entries": "apiKeys",
    "allowed_origins": "allowedOrigins", "allowed_hosts": "allowedHosts",
    "drop_env": "dropEnv",
    "trusted_proxies": "trustedProxies", "profiles": "profiles", "selectors": "selectors",
    "peers": "peers", "ignore_paths": "upstream", "preload": "hooks.on_startup.preload",
    "routing": "routing", "on_idle": "onIdle", "on_idle_after": "onIdleAfter", "queue": "queue",
    "listeners": "listeners",
    "shutdown_timeout": "shutdownTimeout", "hook_limit": "hookLimit",
    "log_time_format": "logTimeFormat", "capture_bytes": "captureBuffer",
    "performance_every": "performance",
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelChange:
    """What becomes of one model.

    Attributes:
        id: Of the model.
        kind: See `Difference`.
        keys: What was changed, by key; empty for models that come or go. Never a value.
        state: Where its lifecycle is now; empty when nobody knows.
    """

    id: str
    kind: ModelChangeKind
    keys: tuple[str, ...] = ()
    state: str = ""

    @property
    def effect(self) -> str:
        """What happens, in words."""
        if self.kind == "added":
            return "starts on demand"
        is_at_rest = self.state in _AT_REST
        if self.kind == "removed":
            if is_at_rest:
                return "is forgotten; requests for it get 404"
            return "drains and stops; who waits for it is refused"
        if self.kind == "live" or (self.state and is_at_rest):
            return "applies at once"
        if self.kind == "next_start":
            return "applies at its next start; the running process keeps what it has"
        return "drains and stops if it runs; requests wait and start it anew"

    def __str__(self) -> str:
        """Say it in one line."""
        mark = {"added": "+", "removed": "-"}.get(self.kind, "~")
        what = f" ({', '.join(self.keys)})" if self.keys else ""
        return f"{mark} {self.id}{what}: {self.effect}"


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingChange:
    """A setting of the proxy that differs.

    Attributes:
        key: Its key.
        is_late: It applies only when the proxy is started again.
    """

    key: str
    is_late: bool = False

    def __str__(self) -> str:
        """Say it in one line."""
        when = "applies when swapchart is started again" if self.is_late else "applies at once"
        return f"~ {self.key}: {when}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReloadPlan:
    """What a new configuration changes.

    Attributes:
        models: Those that change, in the order of the new configuration, removed ones last.
        unchanged: Ids of models that go on as they are.
        settings: What else changes.
    """

    models: tuple[ModelChange, ...] = ()
    unchanged: tuple[str, ...] = ()
    settings: tuple[SettingChange, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Tell whether nothing changes."""
        return not (self.models or self.settings)

    def __str__(self) -> str:
        """Say it in lines, as the command line shows it."""
        count = len(self.unchanged)
        kept = f"{count} model{'' if count == 1 else 's'} unchanged"
        if self.is_empty:
            return f"nothing changes; {kept}"
        return "\n".join([*map(str, self.models), *map(str, self.settings), kept])

    def as_json(self) -> dict[str, Any]:
        """Return it as the API tells it."""
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
            "text": str(self),
        }


def plan(old: Config, new: Config, states: Mapping[str, str] | None = None) -> ReloadPlan:
    """Say what becomes of everything when *new* replaces *old*.

    Args:
        old: What is in force; *new* was loaded with its ports.
        new: What is to be.
        states: Model id -> innermost state of its lifecycle; None: nobody knows.
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
    return ReloadPlan(models=tuple(changes), unchanged=tuple(unchanged), settings=tuple(settings))


def _setting(config: Config, name: str, both: Set[str]) -> object:
    """Return a setting; of groups only what is about models that both configurations have."""
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
    """Say what it takes to make a model that is *old* into *new*."""
    if old == new:
        return "same"
    kind = compare(service_spec(old), service_spec(new))
    if kind != "restart" and old.kv != new.kv:
        # What saves and restores is hung into its hooks; a folder is added to its command.
        return "restart" if _kv_argument(old) != _kv_argument(new) else "next_start"
    return "live" if kind == "same" else kind


def _kv_argument(model: ModelConfig) -> object:
    """Return what the folder depends on that is added to the command; None: none is."""
    settings = kv_settings(model)
    if settings is None or not adds_folder(service_spec(model), settings):
        return None
    return settings.directory, settings.tmpfs


def changed_keys(old: ModelConfig, new: ModelConfig) -> tuple[str, ...]:
    """Return the keys of a model whose values differ, each once, in the order of the model."""
    return tuple(dict.fromkeys(_changed_keys(old, new)))


def _changed_keys(old: ModelConfig, new: ModelConfig) -> Iterable[str]:
    for field in fields(ModelConfig):
        before, after = getattr(old, field.name), getattr(new, field.name)
        if not field.compare or before == after:
            continue
        if field.name == "hooks":
            points = (p for p in {**before, **after} if before.get(p) != after.get(p))
            yield from (p if p in HOOK_POINTS else f"hookPoints.{p}" for p in points)
        else:
            yield _KEYS.get(field.name) or _camel(field.name)


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)
