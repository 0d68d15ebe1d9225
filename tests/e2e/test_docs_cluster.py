"""The commands of docs/cluster.md make a cluster of two nodes, on which a model runs."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import yaml
from tools import shown
from tools.documents import PAGES, blocks
from tools.ray_cluster import HAS_RAY, WHY_SKIPPED
from tools.swapchart_process import SwapchartProcess, demo_model

pytestmark = [pytest.mark.ray, pytest.mark.slow]

#: Address, and node name, by the option that only one of the two machines has.
HEAD = "127.0.0.21:6391"
OPTIONS = {
    "--head": "--node-ip-address=127.0.0.21 --port=6391 --node-name=box1",
    f"--address={HEAD}": "--node-ip-address=127.0.0.22 --node-name=box2",
}


@pytest.fixture
def environment(tmp_path: Path) -> Iterator[dict[str, str]]:
    """Environment of both machines; at its end no process of Ray is left."""
    programs = str(Path(sys.executable).parent)
    values = {
        **os.environ, "HOME": str(tmp_path), "PATH": f"{programs}:{os.environ['PATH']}",
        "DOCS_CLUSTER": str(tmp_path),
        # Sockets of Ray lie below, and their paths may have 107 characters.
        "RAY_FOLDER": tempfile.mkdtemp(prefix="ray-", dir="/tmp"),
    }  # fmt: skip
    try:
        yield values
    finally:
        for process in psutil.process_iter():
            try:
                if process.environ().get("DOCS_CLUSTER") == str(tmp_path):
                    process.kill()
            except psutil.Error:
                continue
        shutil.rmtree(values["RAY_FOLDER"], ignore_errors=True)


def test_docs_cluster_commands_make_a_cluster(environment: dict[str, str], tmp_path: Path) -> None:
    """Two machines are two addresses here; what the page installs is installed."""
    if not HAS_RAY:
        pytest.skip(WHY_SKIPPED)
    started = []
    for line in [command for _, command in shown.items(shown.CLUSTER)]:
        if line.startswith("export "):
            name, _, value = line.removeprefix("export ").partition("=")
            environment[name] = value
    for line in [command for _, command in shown.items(shown.CLUSTER)]:
        command = line.replace("box1:6379", HEAD).replace("--port=6379", "")
        for option, more in OPTIONS.items():
            if option in command:
                command += f" {more} --object-store-memory=80000000"
                command += f" --temp-dir={environment['RAY_FOLDER']}" if option == "--head" else ""
        if line.startswith("ray "):
            done = subprocess.run(
                shlex.split(command), env=environment, capture_output=True, text=True, timeout=60
            )
            assert done.returncode == 0, done.stdout + done.stderr
            started.append(line.split()[1])
    assert started == ["get-auth-token", "start", "start", "status"]

    (text,) = blocks(PAGES["cluster.md"], "yaml")
    config = yaml.safe_load(text)
    config["cluster"]["address"] = HEAD
    for name, model in config["models"].items():
        host = "${HOST}" if "nodes" in model else "127.0.0.1"
        model["cmd"] = demo_model(name, "--host", host, "--quiet")["cmd"]
    folder = tmp_path / "proxy"
    folder.mkdir()
    proxy = SwapchartProcess(config, cwd=folder, env=environment)
    try:
        proxy.wait_listening()
        assert proxy.chat("coder").status == 200
        assert proxy.chat("small").status == 200
        coder, small = (proxy.running()[name]["pid"] for name in ("coder", "small"))
        assert b"\0SWAPCHART_NODE=box2\0" in Path(f"/proc/{coder}/environ").read_bytes()
        assert b"SWAPCHART_NODE" not in Path(f"/proc/{small}/environ").read_bytes()
        assert proxy.stop() == 0
    finally:
        proxy.close()
