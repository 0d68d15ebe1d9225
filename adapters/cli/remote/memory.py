"""`swapchart memory`: memory pools of a running proxy, and what models hold of them."""

from __future__ import annotations

import argparse
import json
from typing import Any

from .client import asking, proxy_of
from .table import size


@asking
def memory(options: argparse.Namespace) -> int:
    """Print the memory pools of a running proxy, and what each model holds of them."""
    found = proxy_of(options).get("/api/memory", "pools")
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
