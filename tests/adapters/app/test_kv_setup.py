"""Settings of caches from the configuration, and when a model is idle enough for a save."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from swapchart.adapters.app.kv_setup import kv_manager_of, kv_problems, kv_settings_by_model
from swapchart.adapters.config import load_config


@pytest.mark.parametrize(
    ("queue", "in_flight", "waiting", "is_idle"),
    [((), 0, 0, True), (("m",), 0, 0, False), (("other",), 0, 0, True), ((), 1, 0, False),
     ((), 0, 1, False)],
    ids=["idle", "queued", "another model queued", "in flight", "waiting"],
)  # fmt: skip
def test_model_with_a_request_in_flight_or_queued_is_not_idle(
    queue: tuple[str, ...], in_flight: int, waiting: int, is_idle: bool
) -> None:
    services = {"m": SimpleNamespace(in_flight=in_flight, waiting=waiting)}
    queued = [SimpleNamespace(service=name) for name in queue]
    supervisor: Any = SimpleNamespace(get=services.get, scheduler=SimpleNamespace(queue=queued))
    manager = kv_manager_of(None, lambda: supervisor)

    assert manager._is_model_idle("m") is is_idle
    assert not manager._is_model_idle("removed")


def test_engine_that_keeps_its_caches_is_left_alone(tmp_path: Path) -> None:
    """Where all models have `kv: keep`, swapchart steps aside for it, and asks for no option."""
    path = tmp_path / "config.yaml"
    models = {
        "a": {"cmd": "llama-server --port ${PORT}"},
        "b": {"cmd": "vllm serve --port ${PORT}", "kv": "engine"},
    }
    path.write_text(json.dumps({"kv": "keep", "models": models}))
    config = load_config([path])
    settings = kv_settings_by_model(config)

    assert settings["a"] is not None
    assert settings["b"] is None
    assert {problem.path for problem in kv_problems(config, tmp_path)} == {"models.a.kv"}
