"""`swapchart load`, `unload` and `explain`: which models run, and what a request would cause."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from time import monotonic

from ..output import _fail
from .client import asking, model_path, proxy_of
from .progress import Progress


@asking
def load(options: Namespace) -> int:
    """Load a model and wait until it is ready."""
    proxy = proxy_of(options)
    began = monotonic()
    path = model_path(options.model, "/api/models/load/")
    try:
        with Progress(proxy, options.model, is_quiet=options.json):
            proxy.change(path)
    except KeyboardInterrupt:
        if not options.json:
            print(
                f"\nthe load goes on; `swapchart unload {options.model}` ends it", file=sys.stderr
            )
        raise
    seconds = monotonic() - began
    if options.json:
        print(json.dumps({"model": options.model, "seconds": round(seconds, 3)}))
    else:
        print(f"{options.model} is ready after {seconds:.1f} s")
    return 0


@asking
def unload(options: Namespace) -> int:
    """Unload a model, or all, and wait until their processes have ended."""
    if (options.model is None) is not options.all:
        _fail("unload: expected MODEL or --all")
        return 2
    proxy = proxy_of(options)
    if options.all:
        proxy.change("/api/models/unload")
    else:
        proxy.change(model_path(options.model, "/api/models/unload/"))
    if options.json:
        print(json.dumps({"unloaded": options.model or "all"}))
    else:
        print("all models are unloaded" if options.all else f"{options.model} is unloaded")
    return 0


@asking
def explain(options: Namespace) -> int:
    """Print what a request for a model would cause, and why."""
    found = proxy_of(options).get(model_path(options.model, after="/explain"), "outcome")
    if options.json:
        print(json.dumps(found, indent=2))
        return 0
    evicted = f", which evicts {', '.join(found['evict'])}" if found["evict"] else ""
    reason = f": {found['why']}" if found["why"] else ""
    print(f"{found['model']} ({found['state']}): {found['outcome']}{evicted}{reason}")
    if found["cause"]:
        print(f"  {found['state']} because: {found['cause']}")
    if found["outcome"] == "wait":
        print(f"  place in the queue: {found['position']}")
    if container := found.get("container"):
        name = f", container {container['name']}" if container["name"] else ""
        print(f"  runs in {container['engine']}: image {container['image']}{name}")
    for line in found.get("memory", ()):
        print(f"  {line}")
    return 0


def plan(options: Namespace) -> int:
    """Do the same as `explain`, or with --with print whether models fit together."""
    if options.beside is not None:
        from ..fitting import plan_with

        if options.model:
            _fail("plan: expected either a model, or --with for models without a proxy")
            return 2
        return plan_with(options)
    if not options.model:
        _fail("plan: expected a model, or --with A,B,C")
        return 2
    return explain(options)
