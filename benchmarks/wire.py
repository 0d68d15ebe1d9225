"""Responses of each HTTP layer to the corpus of raw requests: the table in docs/reliability.md.

    python benchmarks/wire.py

One row for each request on which the layers differ: the statuses that came back, ``-`` where
nothing did, and ``+`` where the connection was kept open.
"""

from __future__ import annotations

import sys
import tempfile
from contextlib import suppress
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from tools import raw
from tools.swapchart_process import SwapchartProcess, port_block
from tools.wire import REFUSED, SMUGGLED

LAYERS = {"ours": "hypercorn", "hypercorn": "hypercorn --stock", "uvicorn": "uvicorn --stock"}


def verdict(port: int, data: bytes) -> str:
    """Return the statuses that came back, and whether the connection stayed open."""
    found: list[str] = []
    with raw.Connection(port, timeout_s=0.3) as client:
        try:
            client.send(data + SMUGGLED)
            while True:
                answer = client.read_answer()
                found.append(str(answer.status))
        except TimeoutError:
            return (" ".join(found) or "-") + " +"
        except (EOFError, ConnectionError):
            return " ".join(found) or "-"


def main() -> None:
    """Print the table."""
    verdicts: dict[str, dict[str, str]] = {name: {} for name in REFUSED}
    for layer, server in LAYERS.items():
        with tempfile.TemporaryDirectory() as folder:
            config = {"models": {}, "startPort": port_block()}
            with SwapchartProcess(config, cwd=Path(folder), server=server) as proxy:
                proxy.wait_listening()
                for name, (_, data) in REFUSED.items():
                    with suppress(OSError):
                        verdicts[name][layer] = verdict(proxy.port, data)
                proxy.stop()
    print("| request | " + " | ".join(LAYERS) + " |")
    print("| --- |" + " --- |" * len(LAYERS))
    alike = 0
    for name, row in verdicts.items():
        if len(set(row.values())) == 1:
            alike += 1
            continue
        print(f"| {name} | " + " | ".join(row.get(layer, "?") for layer in LAYERS) + " |")
    print(f"\n{alike} of {len(verdicts)} alike")


if __name__ == "__main__":
    main()
