"""Runs one supervised process with what ``pip install swapchart`` brings, and nothing more.

Run by CI, and by tests/test_embedding.py, in an environment that holds the wheel without extras.
Ends with code 0 if the process became ready, was held, and is gone at the end.
"""

from __future__ import annotations

import importlib.util
import os
import socket
import sys

import anyio

from swapchart.adapters.process import LocalLauncher
from swapchart.runtime import Command, ServiceSpec, Supervisor

OF_EXTRAS = (
    "hypercorn",
    "httpx",
    "httptools",
    "msgspec",
    "prometheus_client",
    "uvloop",
)


async def run_one(port: int) -> tuple[int | None, list[str]]:
    """Embed: returns the process id, and the states it went through."""
    states: list[str] = []
    argv = (sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1")
    url = f"http://127.0.0.1:{port}"
    spec = ServiceSpec(name="web", command=Command(argv=argv), endpoint=url, check_url=f"{url}/")
    async with LocalLauncher() as launcher, Supervisor(launcher, [spec]) as supervisor:
        supervisor.listen(lambda record: states.append(record.target))
        async with supervisor.lease("web") as lease:
            with socket.create_connection(("127.0.0.1", port), timeout=10):
                return lease.pid, states
    raise AssertionError("not reached")


def main() -> int:
    """Check it on asyncio; returns the exit code."""
    there = [name for name in OF_EXTRAS if importlib.util.find_spec(name)]
    if there:
        print(f"expected an environment without extras, found {', '.join(there)}")
        return 1
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    pid, states = anyio.run(run_one, port)
    print(f"pid {pid}: {' -> '.join(states)}")
    is_gone = pid is not None and not os.path.exists(f"/proc/{pid}")  # noqa: PTH110
    is_right = "ready" in states and states[-1] == "shut_down"
    return 0 if is_gone and is_right else 1


if __name__ == "__main__":
    sys.exit(main())
