"""`swapchart status`, `ps`, `list` and `queue`: the state of a running proxy and its models."""

from __future__ import annotations

import json
from argparse import Namespace
from collections import Counter
from typing import Any

from .client import Proxy, asking, proxy_of
from .table import count, size, table


@asking
def status(options: Namespace) -> int:
    """Print the models of a running proxy with their states, its queue, and its memory."""
    found = read_status(proxy_of(options))
    if options.json:
        print(json.dumps(found, indent=2))
        return 0
    print(
        f"swapchart {found['version']} at {found['url']}: {count(len(found['models']), 'model')}, "
        f"{found['in_flight']} in flight, {found['waiting']} waiting"
    )
    if found["models"]:
        names = ("model", "state", "in_flight", "waiting", "why")
        rows = [[model[name] for name in names] for model in found["models"]]
        print(table(("MODEL", "STATE", "IN FLIGHT", "WAITING", "WHY"), rows))
    for pool in found["memory"]["pools"] if found["memory"] else ():
        used = f"{size(pool['held'])} models, {size(pool['foreign'])} other programs"
        print(f"{pool['name']}: {size(pool['free'])} of {size(pool['capacity'])} free ({used})")
    return 0


def read_status(proxy: Proxy) -> dict[str, Any]:
    """Return the state of *proxy*: models with what they hold in bytes, queue, swaps and memory.

    Raises:
        ApiError: It does not respond, or does not allow it.
    """
    version = proxy.get("/api/version", "version")["version"]
    running = {row["model"]: row for row in proxy.get("/running", "running")["running"]}
    queue = proxy.get("/api/queue", "queue")
    queued = Counter(row["model"] for row in queue["queue"])
    memory = proxy.get("/api/memory", "pools")
    models = []
    for row in proxy.get("/health/readiness", "models")["models"]:
        run = running.get(row["model"], {})
        models.append(
            {
                "model": row["model"], "state": row["state"],
                "in_flight": run.get("in_flight", 0),
                "waiting": run.get("waiting", 0) + queued[row["model"]],
                "why": row["why"] or row["cause"], "accepts": row["accepts"],
                "pid": run.get("pid"), "incarnation": run.get("incarnation"),
                "held": held_memory(run),
            }
        )  # fmt: skip
    return {
        "url": proxy.url, "version": version, "models": models,
        "in_flight": sum(model["in_flight"] for model in models),
        "waiting": sum(model["waiting"] for model in models),
        "queue": queue["queue"], "swaps": queue["swaps"],
        "memory": memory if memory["pools"] else None,
    }  # fmt: skip


@asking
def processes(options: Namespace) -> int:
    """Print the models whose server runs."""
    rows = proxy_of(options).get("/running", "running")["running"]
    if options.json:
        print(json.dumps(rows, indent=2))
    elif not rows:
        print("no model runs")
    else:
        header = ("MODEL", "STATE", "PID", "RUN", "IN FLIGHT", "MEMORY", "ENDPOINT", "COMMAND")
        print(table(header, [_process(row) for row in rows]))
    return 0


def held_memory(row: dict[str, Any]) -> int | None:
    """Return the bytes that a running model holds; None means that they are not known."""
    held = [max(of["claim"], of["seen"] or 0) for of in row.get("memory", {}).values()]
    return sum(held) if held else None


def _process(row: dict[str, Any]) -> list[object]:
    held = held_memory(row)
    memory = None if held is None else size(held)
    return [
        row["model"], row["state"], row["pid"], row["incarnation"], row["in_flight"], memory,
        row["proxy"], row["cmd"],
    ]  # fmt: skip


@asking
def models(options: Namespace) -> int:
    """Print the models as clients see them."""
    rows = proxy_of(options).get("/v1/models", "data")["data"]
    if options.json:
        print(json.dumps(rows, indent=2))
    elif not rows:
        print("no model is configured")
    else:
        print(table(("MODEL", "STATUS", "CONTEXT", "ALIASES", "DESCRIPTION"), map(_model, rows)))
    return 0


def _model(row: dict[str, Any]) -> list[object]:
    facts = row.get("meta", {}).get("llamaswap", {})
    about = ": ".join(text for text in (row.get("name"), row.get("description")) if text)
    if row["owned_by"] != "swapchart":
        about = f"{about} (of {row['owned_by']})".lstrip()
    return [
        row["id"], row["status"]["value"], row.get("context_length"),
        ", ".join(facts.get("aliases", ())), about,
    ]  # fmt: skip


@asking
def queue(options: Namespace) -> int:
    """Print the requests that wait, why they do, and the swaps under way."""
    found = proxy_of(options).get("/api/queue", "queue")
    if options.json:
        print(json.dumps(found, indent=2))
        return 0
    for swap in found["swaps"]:
        print(f"swap: {', '.join(swap['evicting'])} -> {swap['target']}")
    if found["queue"]:
        rows = [
            [row["position"], row["model"], row["priority"], f"{row['waited_s']:.1f} s", row["why"]]
            for row in found["queue"]
        ]
        print(table(("PLACE", "MODEL", "PRIORITY", "WAITED", "WHY"), rows))
    else:
        print("no request is queued")
    return 0
