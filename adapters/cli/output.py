"""Messages and log lines of commands on standard error."""

from __future__ import annotations

import sys


def _fail(message: str, code: int = 1) -> int:
    print(f"swapchart: {message}", file=sys.stderr)
    return code


def _log_to_stderr(level: str, *, is_json: bool = False) -> None:
    import logging  # takes 20 ms, and most commands log nothing

    number = logging.WARNING if level == "warn" else getattr(logging, level.upper())
    handler = logging.StreamHandler(sys.stderr)
    if is_json:
        from ..app.json_log import JsonFormatter

        handler.setFormatter(JsonFormatter())
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=number, handlers=[handler])
    logging.getLogger("httpx").setLevel(max(number, logging.WARNING))
