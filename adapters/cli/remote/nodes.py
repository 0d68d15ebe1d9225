"""`swapchart nodes`: the machines on which models run, with their devices and models."""

from __future__ import annotations

import json
from argparse import Namespace
from typing import Any
from urllib.parse import quote

from .client import asking, proxy_of
from .table import size, table

_HEADER = ("NODE", "ADDRESS", "STATE", "CPUS", "RAM", "GPUS", "MODELS", "MAY STILL RUN")


@asking
def nodes(options: Namespace) -> int:
    """Print the nodes of a running proxy, and what runs on each."""
    if options.free is not None:
        return _free(options)
    found = proxy_of(options).get("/api/nodes", "nodes")
    if options.json:
        print(json.dumps(found, indent=2))
        return 0
    for launcher, reason in found["engines_down"].items():
        print(f"the engine of {launcher} does not respond: {reason}")
    print(table(_HEADER, map(_row, found["nodes"])))
    return 0


def _free(options: Namespace) -> int:
    path = f"/api/nodes/free/{quote(options.free, safe='')}"
    found = proxy_of(options).send("POST", path, field="models")
    if options.json:
        print(json.dumps(found, indent=2))
        return 0
    names = ", ".join(row["model"] for row in found["models"])
    print(f"{options.free}: {f'free of {names}' if names else 'nothing was lost there'}")
    return 0


def _row(node: dict[str, Any]) -> list[object]:
    ram = node["capacity"].get("RAM")
    cpus = node["capacity"].get("cpus")
    return [
        f"{node['name']} (this machine)" if node["own"] else node["name"], node["address"],
        "up" if node["alive"] else "down", None if cpus is None else f"{cpus:g}",
        None if ram is None else size(ram), ", ".join(map(_device, node["devices"])),
        ", ".join(map(_model, node["models"])),
        ", ".join(row["model"] for row in node["lost"]),
    ]  # fmt: skip


def _model(row: dict[str, Any]) -> str:
    return f"{row['model']} ({', '.join([row['state'], *row['devices']])})"


def _device(device: dict[str, Any]) -> str:
    facts = [device["vendor"], size(device["capacity"]) if device["capacity"] else ""]
    return " ".join([device["pool"], *(fact for fact in facts if fact)])
