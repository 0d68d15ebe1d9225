"""State of a running proxy at one moment, as `top` shows it."""

from __future__ import annotations

import time
from typing import Any

from ..remote.client import ApiError, Proxy, model_path
from ..remote.status import read_status
from ..remote.table import count, size

_REQUESTS = 200  # last finished requests, in which those of each model are looked for
_TRANSITIONS = 30  # a start or a stop has about six


class Swaps:
    """When each model was loaded or unloaded last, by the journal of a proxy.

    The journal of a model is asked only when its state has changed.
    """

    def __init__(self) -> None:
        self._states: dict[str, tuple[object, ...]] = {}
        self._last: dict[str, dict[str, Any] | None] = {}

    def of(self, proxy: Proxy, model: dict[str, Any]) -> dict[str, Any] | None:
        """Return kind and time of the last swap of *model*; None means that it is not known.

        Raises:
            ApiError: The proxy does not respond.
        """
        name, state = model["model"], (model["state"], model["incarnation"])
        if self._states.get(name) != state:
            self._last[name] = _last_swap(proxy, name)
            self._states[name] = state
        return self._last[name]


def _last_swap(proxy: Proxy, name: str) -> dict[str, Any] | None:
    try:
        rows = proxy.get(model_path(name, after="/history"), "data", limit=str(_TRANSITIONS))
    except ApiError as error:
        if error.status in (404, 503):  # removed meanwhile, or no journal is kept
            return None
        raise
    for row in rows["data"]:
        if row["target"] == "ready":
            return {"kind": "loaded", "at": row["at"]}
        if row["target"] in ("stopped", "failed"):
            return {"kind": "unloaded", "at": row["at"]}
    return None


def take(proxy: Proxy, swaps: Swaps) -> dict[str, Any]:
    """Return the status of *proxy* with rates and last swaps of its models.

    Raises:
        ApiError: It does not respond, or does not allow it.
    """
    found = read_status(proxy)
    rates = _rates(proxy)
    for model in found["models"]:
        model["tokens_per_second"] = rates.get(model["model"])
        model["last_swap"] = swaps.of(proxy, model)
    return found


def _rates(proxy: Proxy) -> dict[str, float]:
    """Return model -> tokens per second of its last finished request that has a rate."""
    try:
        rows = proxy.get("/api/metrics/activity", "data", limit=str(_REQUESTS))["data"]
    except ApiError as error:
        if error.status == 503:  # no requests are kept
            return {}
        raise
    rates: dict[str, float] = {}
    for row in rows:
        if (rate := row["tokens"]["tokens_per_second"]) > 0:
            rates.setdefault(row["model"], rate)
    return rates


def row(model: dict[str, Any], now: float) -> list[object]:
    """Return the cells of *model* for a table at the time *now*, seconds since 1970."""
    swap, rate, held = model["last_swap"], model["tokens_per_second"], model["held"]
    return [
        model["model"], model["state"], model["in_flight"], model["waiting"],
        None if held is None else size(held), None if rate is None else round(rate, 1),
        None if swap is None else f"{swap['kind']} {_ago(now - swap['at'])} ago", model["why"],
    ]  # fmt: skip


HEADER = ("MODEL", "STATE", "IN FLIGHT", "WAITING", "MEMORY", "TOKENS/S", "LAST SWAP", "WHY")


def _ago(seconds: float) -> str:
    for unit, name in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= unit:
            return f"{seconds // unit:.0f} {name}"
    return f"{max(seconds, 0):.0f} s"


def title_lines(found: dict[str, Any]) -> list[str]:
    """Return the lines above the table: the proxy, its swaps under way, and its memory."""
    pools = found["memory"]["pools"] if found["memory"] else ()
    return [
        f"swapchart {found['version']} at {found['url']}: {count(len(found['models']), 'model')}, "
        f"{found['in_flight']} in flight, {found['waiting']} waiting, {time.strftime('%H:%M:%S')}",
        *(f"swap: {', '.join(swap['evicting'])} -> {swap['target']}" for swap in found["swaps"]),
        *(
            f"{pool['name']}: {size(pool['free'])} of {size(pool['capacity'])} free"
            for pool in pools
        ),
    ]
