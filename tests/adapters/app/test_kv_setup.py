"""When a model is idle, as far as saves in the background are concerned."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from swapchart.adapters.app.kv_setup import kv_manager_of


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
