"""`swapchart history MODEL`: transitions of a model, from the journal of a proxy."""

from __future__ import annotations

import argparse
import json
from datetime import UTC, datetime
from urllib.parse import quote

from .output import _fail


def history(options: argparse.Namespace) -> int:
    """Print the last transitions of a model of a running proxy, oldest first."""
    from .api_client import ApiError, get_field

    path = f"/api/models/{quote(options.model, safe='')}/history"
    try:
        params = {"limit": str(options.limit)}
        rows = get_field(options.url, path, "data", key=options.api_key, params=params)
    except ApiError as error:
        return _fail(str(error))
    if options.json:
        print(json.dumps(rows, indent=2))
        return 0
    for row in reversed(rows):
        when = datetime.fromtimestamp(row["at"], UTC).astimezone()
        hooks = "".join(f" [{hook['action']}: {hook['outcome']}]" for hook in row["hooks"])
        cause = f" ({row['cause']})" if row["cause"] else ""
        print(
            f"{when:%Y-%m-%d %H:%M:%S.%f}"[:-3] + f"  {row['source']:>15} -> {row['target']:15} "
            f"{row['event']}{cause}{hooks}"
        )
        for hook in row["hooks"]:
            for line in hook.get("output", "").splitlines():
                print(f"{'':25}{hook['action']}: {line}")
    return 0
