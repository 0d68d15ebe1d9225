"""A real Ray cluster on this machine: each node has a loopback address of its own.

Ray runs below a helper process, ``python -m tools.ray_cluster``, which reads requests as JSON.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

HAS_RAY = importlib.util.find_spec("ray") is not None
WHY_SKIPPED = "Ray is not installed: pip install 'swapchart[ray]'"

_TOOLS = Path(__file__).parent.parent
#: Recommended settings of the head: a silent node is lost after about 9 s.
TUNED = {
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "3",
}
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DISABLE_IMPORT_WARNING": "1"}


class RayCluster:
    """A head without GPUs at 127.0.0.2, and nodes from 127.0.0.3 on.

    Args:
        resources: Resources of the head.
        port: Port of the head; 0 means any.

    Attributes:
        address: Address of the head, ``HOST:PORT``.
        nodes: Name -> process ids, by the name of the process of Ray.
    """

    def __init__(self, resources: dict[str, float] | None = None, port: int = 0) -> None:
        Path("/tmp/ray").mkdir(exist_ok=True)  # Ray writes the address of each head there
        # Sockets of Ray lie below, and their paths may have 107 characters.
        self._folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")
        self._helper = subprocess.Popen(
            (sys.executable, "-m", "tools.ray_cluster"),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=_TOOLS,
            env={**os.environ, **QUIET, **TUNED}, start_new_session=True,
        )  # fmt: skip
        self.nodes: dict[str, dict[str, list[int]]] = {}
        self._count = 0
        self._stopped: dict[str, list[int]] = {}
        head = {"do": "head", "folder": self._folder, "resources": resources or {}, "port": port}
        self.address = str(self._ask(head, "head"))

    def _ask(self, request: dict[str, Any], name: str) -> object:
        assert self._helper.stdin is not None
        assert self._helper.stdout is not None
        self._helper.stdin.write(json.dumps(request).encode() + b"\n")
        self._helper.stdin.flush()
        for line in self._helper.stdout:
            if line.startswith(b"{"):
                response = json.loads(line)
                if "error" in response:
                    raise RuntimeError(response["error"])
                self.nodes[name] = response["pids"]
                return response["address"]
        raise RuntimeError("the helper of the Ray cluster has ended")

    def add(
        self, name: str, *, vram: tuple[float, ...] = (), labels: dict[str, str] | None = None,
        resources: dict[str, float] | None = None,
    ) -> str:  # fmt: skip
        """Add a node and return its address.

        Args:
            name: Its name.
            vram: Memory of each GPU in GiB.
            labels: Its labels.
            resources: Further resources.
        """
        self._count += 1
        address = f"127.0.0.{2 + self._count}"
        memory = {f"VRAM_{number}": size for number, size in enumerate(vram)}
        self._ask(
            {
                "do": "add", "name": name, "address": address, "gpus": len(vram),
                "resources": {**memory, **(resources or {})}, "labels": labels or {},
            },
            name,
        )  # fmt: skip
        return address

    def kill(self, name: str, process: str) -> None:
        """Send SIGKILL to a process of Ray on a node, such as ``raylet`` or ``gcs_server``."""
        for pid in self.nodes[name][process]:
            os.kill(pid, signal.SIGKILL)

    def stop(self, name: str) -> None:
        """Stop the raylet and the agents of a node: it is silent, as a machine that is cut off.

        What the agents have started goes on.
        """
        for pid in (*self.nodes[name]["raylet"], *self.agents(name)):
            os.kill(pid, signal.SIGSTOP)
            self._stopped.setdefault(name, []).append(pid)

    def resume(self, name: str) -> None:
        """Let a node that was stopped go on."""
        for pid in self._stopped.pop(name, []):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    def has_node(self, name: str) -> bool:
        """Return True if the raylet of a node runs."""
        (raylet,) = self.nodes[name]["raylet"]
        return b"raylet" in _command_line(raylet)

    def agents(self, name: str) -> list[int]:
        """Return the process ids of the agents on a node; one for each name of a proxy."""
        (raylet,) = self.nodes[name]["raylet"]
        children = psutil.Process(raylet).children()
        return [child.pid for child in children if "ray::Agent" in " ".join(child.cmdline())]

    def guards(self, name: str) -> list[int]:
        """Return the process ids of the guards below the agents on a node."""
        servers = [s for agent in self.agents(name) for s in psutil.Process(agent).children()]
        return [guard.pid for server in servers for guard in server.children()]

    def close(self) -> None:
        """End all processes of Ray, and remove their files."""
        for name in tuple(self._stopped):
            self.resume(name)
        assert self._helper.stdin is not None
        self._helper.stdin.close()
        try:
            self._helper.wait(20)
        except subprocess.TimeoutExpired:
            self._helper.kill()
            self._helper.wait()
        assert self._helper.stdout is not None
        self._helper.stdout.close()
        for pids in self.nodes.values():
            for group in pids.values():
                for pid in group:
                    if b"ray" in _command_line(pid):
                        os.kill(pid, signal.SIGKILL)
        shutil.rmtree(self._folder, ignore_errors=True)


def _command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def _pids(node: Any) -> dict[str, list[int]]:
    return {
        name: [info.process.pid for info in infos] for name, infos in node.all_processes.items()
    }


def main() -> None:
    """Serve requests until the input ends."""
    from ray.cluster_utils import Cluster

    output = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # Ray prints to it
    cluster: Any = None
    common = {"num_cpus": 0, "object_store_memory": 80_000_000}
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if request["do"] == "head":
                head = {
                    **common, "node_ip_address": "127.0.0.2", "node_name": "head",
                    "include_dashboard": False, "temp_dir": request["folder"],
                    "resources": request["resources"],
                    **({"gcs_server_port": request["port"]} if request["port"] else {}),
                }  # fmt: skip
                cluster = Cluster(initialize_head=True, head_node_args=head)
                node = cluster.head_node
            else:
                node = cluster.add_node(
                    **common, node_ip_address=request["address"], node_name=request["name"],
                    resources=request["resources"], labels=request["labels"],
                    num_gpus=request["gpus"],
                )  # fmt: skip
            response = {"address": cluster.address, "pids": _pids(node)}
        except Exception as error:  # noqa: BLE001  (the test reports it)
            response = {"error": repr(error)}
        output.write(json.dumps(response) + "\n")
        output.flush()
    if cluster is not None:
        cluster.shutdown()


if __name__ == "__main__":
    main()
