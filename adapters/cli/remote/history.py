"""`swapchart history`: transitions of one model or all, from the journal of a proxy, and live."""

from __future__ import annotations

import json
import sys
import time
from argparse import Namespace
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, TypeAlias

from .client import ApiError, Proxy, asking, model_path, proxy_of
from .progress import events, open_events
from .signals import losing_no_signal

Row: TypeAlias = Mapping[str, Any]


@asking
def history(options: Namespace) -> int:
    """Print the last transitions, oldest first, and with --follow later ones as they happen."""
    proxy = proxy_of(options)
    stream = open_events(proxy) if options.follow else None  # first, so that none is missed
    try:
        model, rows = _rows(proxy, options)
    except ApiError as error:
        if stream is None or error.status != 503:  # 503: no journal is kept
            raise
        model, rows = options.model, []
    if options.json and stream is None:
        print(json.dumps(rows, indent=2))
        return 0
    for row in reversed(rows):
        _print(row, options)
    if stream is not None:
        seen = {_identity(row) for row in rows}
        with stream, losing_no_signal():
            for kind, value in events(stream):
                if kind == "transition" and model in (None, value["model"]):
                    row = {"at": time.time(), "service": value["model"], **value}
                    if _identity(row) not in seen:
                        _print(row, options)
        raise ApiError(f"{proxy.url} has ended the stream of events")
    return 0


def _rows(proxy: Proxy, options: Namespace) -> tuple[str | None, list[Row]]:
    """Return the id of the model, None for all, and the last transitions, the newest first."""
    if options.model is not None:
        found = proxy.get(_path(options.model), "data", limit=str(options.limit))
        return found["model"], found["data"]
    names = [row["model"] for row in proxy.get("/health/readiness", "models")["models"]]
    rows = [
        row for name in names
        for row in proxy.get(_path(name), "data", limit=str(options.limit))["data"]
    ]  # fmt: skip
    rows.sort(key=lambda row: (row["at"], row["id"]), reverse=True)
    return None, rows[: options.limit]


def _path(model: str) -> str:
    return model_path(model, after="/history")


def _identity(row: Row) -> tuple[object, ...]:
    """Return the facts by which a row of the journal and an event are the same transition."""
    return (
        row.get("service"), row.get("incarnation"), row["event"], row["source"], row["target"],
        round(row.get("seconds", 0), 4),
    )  # fmt: skip


def _print(row: Row, options: Namespace) -> None:
    if options.json:
        print(json.dumps(row), flush=True)
        return
    when = datetime.fromtimestamp(row["at"], UTC).astimezone()
    hooks = "".join(f" [{hook['action']}: {hook['outcome']}]" for hook in row["hooks"])
    cause = f" ({row['cause']})" if row["cause"] else ""
    request = f" request={row['request_id']}" if row.get("request_id") else ""
    name = "" if options.model is not None else f"{row['service']:15} "
    print(
        f"{when:%Y-%m-%d %H:%M:%S.%f}"[:-3] + f"  {name}{row['source']:>15} -> {row['target']:15} "
        f"{row['event']}{cause}{request}{hooks}"
    )
    for hook in row["hooks"]:
        for line in hook.get("output", "").splitlines():
            print(f"{'':25}{hook['action']}: {line}")
    sys.stdout.flush()
