"""External servers: the model follows a server that the proxy neither starts nor signals."""

from __future__ import annotations

import os
import shlex
import signal
from pathlib import Path
from typing import Any

import pytest
from tools.children import demo_argv, demo_server
from tools.net import free_port, wait_until
from tools.swapchart_process import Edited, Serve, demo_model, error_of

pytestmark = pytest.mark.slow


def external(port: int, **keys: Any) -> dict[str, Any]:
    return {"external": True, "proxy": f"http://127.0.0.1:{port}", **keys}


def test_server_without_cmd_is_followed_and_left_alone(serve: Serve, tmp_path: Path) -> None:
    """Ready without a request, failed after three failed probes, and ready when it is back."""
    port, folder = free_port(), tmp_path / "server"
    folder.mkdir()
    liveness = {"every": 0.1}
    model = external(port, liveness=liveness, restart={"cooldown": 0.1})
    with demo_server(cwd=folder, port=port) as server:
        server.wait_healthy()
        proxy = serve({"a": model, "b": demo_model("b")})
        proxy.wait_state("a", "ready")
        assert proxy.chat("a").status == proxy.chat("b").status == 200
        assert proxy.state("a") == "ready"  # not evicted by b
        assert proxy.running()["a"]["pid"] is None
        server.signal(signal.SIGKILL)
        server.wait()
    proxy.wait_said("a failed too often")
    with demo_server(cwd=folder, port=port) as server:
        server.wait_healthy()
        proxy.wait_state("a", "ready")
        assert proxy.chat("a").status == 200
        assert proxy.stop() == 0
        assert server.process.poll() is None


def test_server_without_cmd_is_followed_from_a_reload_on(serve: Serve, tmp_path: Path) -> None:
    """A model that a reload adds becomes ready without a request; a model may share its server."""
    edited = Edited(serve, {"b": demo_model("b")})
    folder = tmp_path / "server"
    folder.mkdir()
    with demo_server(cwd=folder) as server:
        server.wait_healthy()
        edited.value["models"] |= {"a": external(server.port), "c": external(server.port)}
        edited.reload()
        edited.proxy.wait_state("a", "ready")
        edited.proxy.wait_state("c", "ready")
        assert edited.proxy.chat("a").status == edited.proxy.chat("c").status == 200
        assert edited.proxy.unload("a").status == 200
        assert edited.proxy.stop() == 0
        assert server.process.poll() is None


def test_server_without_cmd_that_is_not_there_is_named(serve: Serve) -> None:
    """The request fails with the address and the result of the probe."""
    port = free_port()
    proxy = serve({"a": external(port)})
    error = error_of(proxy.chat("a"))

    assert "refused" in error["message"]
    assert f"no healthy server at http://127.0.0.1:{port}/health" in error["message"]


def test_cmd_starts_the_server_and_cmd_stop_ends_it(serve: Serve, tmp_path: Path) -> None:
    """`cmd` ends with 0; a swap and an unload run `cmdStop`, which alone ends the server."""
    port, pid_file = free_port(), tmp_path / "pid"
    server = shlex.join(demo_argv(port=port))
    start = f"setsid {server} </dev/null >/dev/null 2>&1 & echo $! > {pid_file}"
    stop = f"kill $(cat {pid_file}) && mv {pid_file} {tmp_path}/stopped"
    model = external(port, cmd=["sh", "-c", start], cmdStop=["sh", "-c", stop])
    proxy = serve({"a": model, "b": demo_model("b")})
    try:
        assert proxy.chat("a").status == 200
        assert proxy.chat("b").status == 200
        assert not pid_file.exists()
        assert (tmp_path / "stopped").exists()
        assert proxy.state("a") == "stopped"
        assert proxy.chat("a").status == 200
        assert proxy.unload("a").status == 200
        assert not pid_file.exists()
    finally:
        if pid_file.exists():
            os.kill(int(pid_file.read_text()), signal.SIGKILL)


def test_server_outlives_a_proxy_that_is_killed(serve: Serve, tmp_path: Path) -> None:
    """Neither the guard process nor the next start of the proxy ends it."""
    port, pid_file = free_port(), tmp_path / "pid"
    server = shlex.join(demo_argv(port=port))
    start = f"setsid env -i {server} </dev/null >/dev/null 2>&1 & echo $! > {pid_file}"
    # The next proxy runs `cmd` too: like `systemctl start`, it starts one server and not a second.
    start = f"[ -e {pid_file} ] || {{ {start}; }}"
    config = {"a": external(port, cmd=["sh", "-c", start]), "b": demo_model("b")}
    proxy = serve(config)
    assert proxy.chat("a").status == proxy.chat("b").status == 200
    pid = int(pid_file.read_text())
    try:
        proxy.note_guard()
        b_pid = proxy.running()["b"]["pid"]
        proxy.signal(signal.SIGKILL)
        proxy.wait()
        wait_until(lambda: not Path(f"/proc/{b_pid}").exists(), what="the guard has ended b")
        assert b"demo" in Path(f"/proc/{pid}/cmdline").read_bytes()
        again = serve(config)
        assert again.chat("a").status == 200
        assert again.stop() == 0
        assert b"demo" in Path(f"/proc/{pid}/cmdline").read_bytes()
    finally:
        os.kill(pid, signal.SIGKILL)
