"""Limit of a shutdown, computed from what the models need."""

from __future__ import annotations

from ..config import Config, ModelConfig
from .kv_setup import kv_settings
from .service_setup import service_spec

_STOP_SLACK_S = 5.0  # for steps without a limit: starting hooks, reaping, a busy machine


def stop_limit_s(config: Config) -> float:
    """Return the shutdown limit: `shutdownTimeout`, or what the models need; seconds."""
    if config.shutdown_timeout is not None:
        return config.shutdown_timeout
    needs = (
        (spec.timings.drain_limit or 0.0) + spec.longest_stop_s() + _save_limit_s(model)
        for model, spec in ((model, service_spec(model)) for model in config.models.values())
    )
    return max(needs, default=0.0) + _STOP_SLACK_S


def _save_limit_s(model: ModelConfig) -> float:
    settings = kv_settings(model)
    return 0.0 if settings is None else settings.hook_timeout_s
