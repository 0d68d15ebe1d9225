"""Messages and log lines of commands on standard error."""

from __future__ import annotations

import sys


def _fail(message: str) -> int:
    print(f"swapchart: {message}", file=sys.stderr)
    return 1


def _log_to_stderr(level: str) -> None:
    import logging  # takes 20 ms, and most commands log nothing

    number = logging.WARNING if level == "warn" else getattr(logging, level.upper())
    logging.basicConfig(
        level=number, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    logging.getLogger("httpx").setLevel(max(number, logging.WARNING))
