"""Events of the sidecar, in the order in which they may come."""

from __future__ import annotations

import base64

import pytest

from swapchart.adapters.ray.fleet import Fleet

pytestmark = pytest.mark.anyio


async def http_get(url: str, timeout_s: float) -> tuple[int | None, str]:
    raise NotImplementedError(url, timeout_s)


class Log:
    def __init__(self) -> None:
        self.data = b""

    def write(self, data: bytes) -> None:
        self.data += data


async def test_output_right_behind_its_node_reaches_the_log_of_an_adopted_process() -> None:
    """Both messages may arrive at once, so nothing else runs between them."""
    settings = {"address": "auto", "cluster": "test", "owner": {}}
    fleet = Fleet(settings, "ray", http_get, lambda _: None)
    run = {"id": "m#1@x", "label": "m", "incarnation": 1, "is_hook": False, "code": None}
    node = {
        "id": "n", "name": "box1", "address": "10.0.0.1", "resources": {}, "labels": {},
        "is_own": False,
    }  # fmt: skip
    output = {"log": base64.b64encode(b"started\n").decode(), "offset": 8, "killed": None}
    fleet._take({"event": "node", "state": "up", "node": node, "processes": [dict(run)]})
    fleet._take({"event": "process", "node_id": "n", **run, **output})
    (process,) = fleet.claim()
    process.attach(log := Log())

    assert log.data == b"started\n"
