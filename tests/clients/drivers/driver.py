"""Main loop of a driver: JSON orders on standard input, JSON results on standard output, by lines.

An order has ``do`` (the name of a function), ``model``, ``text`` and, where it is another than
usual, ``key``. A result has the values of the function, or ``error``.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from typing import Any

TOOL = {"type": "object", "properties": {"color": {"type": "string"}}, "required": ["color"]}
RESULT = "a red one"


def run(make: Callable[[str, str], Mapping[str, Callable[[str, str], dict[str, Any]]]]) -> None:
    """Carry out orders until the input ends.

    Args:
        make: Returns what a client can do, by the name of the order, for a base URL and a key.
    """
    base, key = sys.argv[1:]
    for line in sys.stdin:
        order = json.loads(line)
        try:
            do = make(base, order.get("key", key))[order["do"]]
            result = do(order.get("model", ""), order.get("text", ""))
        except Exception as error:  # noqa: BLE001  (of any library)
            status = getattr(error, "status_code", None)
            result = {"error": {"status": status, "message": str(error)}}
        print(json.dumps(result), flush=True)


def messages(text: str) -> list[dict[str, Any]]:
    """Return a chat of one message."""
    return [{"role": "user", "content": text}]
