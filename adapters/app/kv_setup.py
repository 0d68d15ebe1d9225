"""KV cache settings and hooks of each model, from the configuration."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ...runtime import ServiceSpec, Supervisor
from ..config import Config, ModelConfig, Problem
from ..kv.manager import KvManager, warning_of
from ..kv.settings import KvSettings
from ..store.state_directory import StateDirectory
from .service_setup import service_spec


def kv_settings(model: ModelConfig) -> KvSettings | None:
    """Return the KV cache settings of *model*; None means that nothing is kept here."""
    return desired_kv_settings(model) if model.kv.mode == "keep" else None


def kv_settings_by_model(config: Config) -> dict[str, KvSettings | None]:
    """Return `kv_settings` for each model, by its id."""
    return {model.id: kv_settings(model) for model in config.models.values()}


def desired_kv_settings(model: ModelConfig) -> KvSettings:
    """Return the KV cache settings of *model* as if its `kv` were `keep`."""
    given = model.kv
    return KvSettings(
        directory=Path(given.dir) if given.dir else None,
        tmpfs=Path(given.tmpfs) if given.tmpfs else None,
        manages_args=given.manage_args,
        min_tokens=given.min_tokens,
        timeout_s=given.timeout,
        allows_swa=given.allow_swa,
        max_bytes=given.max_bytes,
        max_age_s=given.max_age,
        has_checkpoints=given.checkpoint == "auto",
        write_budget=given.write_budget,
        library_bytes=given.library,
    )


def with_kv_hooks(model: ModelConfig, spec: ServiceSpec, kv_manager: KvManager) -> ServiceSpec:
    """Return *spec*, the service of *model*, with the hooks that save and restore its cache."""
    settings = kv_settings(model)
    return spec if settings is None else kv_manager.add_hooks(spec, settings)


def kv_problems(config: Config, state: Path) -> list[Problem]:
    """Return the reasons why caches cannot be kept, each with its remedy.

    Args:
        config: Configuration of the proxy.
        state: State directory of the proxy.
    """
    kv_manager, found = KvManager(state / "kv"), []
    for model in config.models.values():
        settings, spec = kv_settings(model), service_spec(model)
        if settings is not None:
            texts = (kv_manager.blocker(spec, settings), warning_of(spec))
            found += [(f"models.{model.id}.kv", text) for text in texts if text]
    return [
        Problem(file="", path=path, line=0, column=0, message=text, severity="warning")
        for path, text in found
    ]


def kv_manager_of(state: StateDirectory | None, supervisor: Callable[[], Supervisor]) -> KvManager:
    """Return the KV manager of the models that *supervisor* returns, once there is one."""
    return KvManager(
        None if state is None else state.path / "kv",
        lambda model, line: supervisor()[model].log.line(line),
        lambda model: _is_idle(supervisor(), model),
    )


def _is_idle(supervisor: Supervisor, model: str) -> bool:
    """Return True if no request is in flight or queued for *model*."""
    found = supervisor.get(model)
    is_queued = any(each.service == model for each in supervisor.scheduler.queue)
    return found is not None and not (is_queued or found.in_flight or found.waiting)
