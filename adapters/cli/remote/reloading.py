"""`swapchart config reload` and `config plan`: the configuration of a running proxy."""

from __future__ import annotations

import argparse
import json
import sys

from ..defaults import proxy_url
from ..output import _fail
from .client import ApiError, proxy_of, reading

_LIMIT_S = 60.0


def reload(options: argparse.Namespace) -> int:
    """Reload the configuration of a running proxy; print what changed."""
    return _ask(options, "reload")


def plan(options: argparse.Namespace) -> int:
    """Print the plan of a reload in a running proxy."""
    options.url = options.url or proxy_url()
    return _ask(options, "plan")


def _ask(options: argparse.Namespace, what: str) -> int:
    try:
        field = "plan" if what == "reload" else "text"
        path = f"/api/config/{what}"
        value = proxy_of(options).send("POST", path, field=field, limit_s=_LIMIT_S)
        with reading(options.url):
            problems = [str(problem["text"]) for problem in value.get("problems", ())]
            text = "".join([(value["plan"] if what == "reload" else value)["text"]])
    except ApiError as error:
        return _refused(options, error)
    if options.json:
        print(json.dumps(value, indent=2))
        return 0
    for problem in problems:
        print(problem, file=sys.stderr)
    print(text)
    return 0


def _refused(options: argparse.Namespace, error: ApiError) -> int:
    problems = error.error.get("problems")
    if options.json and error.error:
        print(json.dumps({"error": error.error}, indent=2))
    elif problems:
        print("\n".join(problem["text"] for problem in problems), file=sys.stderr)
    return _fail("nothing was changed" if problems else str(error))
