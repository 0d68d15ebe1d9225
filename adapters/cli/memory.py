"""`swapchart memory` and `swapchart plan`: memory pools of a running proxy, and sums."""

from __future__ import annotations

import argparse
import json
from typing import Any
from urllib.parse import quote

from ...runtime.memory import size
from .output import _fail


def memory(options: argparse.Namespace) -> int:
    """Print the memory pools of a running proxy, and what each model holds of them."""
    found = _ask(options, "/api/memory", "pools")
    if isinstance(found, int):
        return found
    if options.json:
        print(json.dumps(found, indent=2))
        return 0
    if not found["pools"]:
        print("memory is no condition: `memory:` is off in the configuration of the proxy")
        return 0
    for pool in found["pools"]:
        print(_pool_line(pool))
        for model in found["models"]:
            held = max(amounts.get(pool["name"], 0) for amounts in (model["claim"], model["seen"]))
            if held:
                print(_model_line(model, pool["name"], held))
    for notice in found.get("notices", ()):
        print(notice["text"])
    return 0


def plan(options: argparse.Namespace) -> int:
    """Print what a request for a model of a running proxy would cause, with the sum of memory."""
    if options.beside is not None:
        from .fitting import plan_with

        if options.model:
            return _fail("expected either a model, or --with for models without a proxy")
        return plan_with(options)
    if not options.model:
        return _fail("expected a model, or --with A,B,C")
    path = f"/api/models/{quote(options.model, safe='')}/explain"
    found = _ask(options, path, "outcome")
    if isinstance(found, int):
        return found
    if options.json:
        print(json.dumps(found, indent=2))
        return 0
    evicted = f", which evicts {', '.join(found['evict'])}" if found["evict"] else ""
    reason = f": {found['why']}" if found["why"] else ""
    print(f"{found['model']} ({found['state']}): {found['outcome']}{evicted}{reason}")
    for line in found.get("memory", ()):
        print(f"  {line}")
    return 0


def _ask(options: argparse.Namespace, path: str, field: str) -> dict[str, Any] | int:
    """Return the response of the proxy, or an exit code after a message."""
    from .api_client import ApiError, get_object

    try:
        return get_object(options.url, path, field, key=options.api_key)
    except ApiError as error:
        return _fail(str(error))


def _pool_line(pool: dict[str, Any]) -> str:
    parts = [f"{size(pool['capacity'])} capacity"]
    if pool["limit"] is not None:
        parts.append(f"limit {size(pool['limit'])}")
    if pool["reserve"]:
        parts.append(f"{size(pool['reserve'])} reserve")
    parts.append(f"{size(pool['foreign'])} other programs")
    parts.append(f"{size(pool['held'])} models")
    parts.append(f"{size(pool['free'])} free")
    stale = " (the last reading is too old)" if pool["stale"] else ""
    return f"{pool['name']}: {', '.join(parts)}{stale}"


def _model_line(model: dict[str, Any], pool: str, held: int) -> str:
    seen = model["seen"].get(pool)
    facts = [model["phase"], model["source"]]
    if seen is not None:
        facts.append(f"{size(seen)} measured")
    if model["pinned"]:
        facts.append("pinned")
    if model["idle_s"]:
        facts.append(f"idle for {model['idle_s']:.0f} s")
    return f"  {size(held):>9}  {model['model']} ({', '.join(facts)})"
