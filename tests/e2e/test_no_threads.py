"""A proxy that can make no thread, or was started without standard descriptors, goes on."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tools.net import LONG_S, free_port, wait_until
from tools.raw import status
from tools.swapchart_process import Serve, SwapchartProcess, demo_model, error_of

pytestmark = pytest.mark.slow


def by_name(label: str) -> dict[str, object]:
    return demo_model(label) | {"proxy": "http://localhost:${PORT}"}


def limit_memory(proxy: SwapchartProcess) -> None:
    """Leave the proxy no address space for another thread's stack."""
    pages = int(Path(f"/proc/{proxy.pid}/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + (6 << 20)
    resource.prlimit(proxy.pid, resource.RLIMIT_AS, (limit, limit))


def test_serve_without_memory_for_threads_serves_and_ends_in_order(
    serve: Serve, server: str
) -> None:
    """The first lookup of localhost used to abort the proxy; now its model is served."""
    proxy = serve({"near": by_name("near")}, server=server)
    limit_memory(proxy)
    answer = proxy.chat("near")

    assert answer.status == 200, (answer.body, proxy.output())
    assert status(proxy.port) == 200
    assert proxy.unload().status == 200


def test_serve_at_its_limit_of_processes_fails_the_start_and_recovers(
    pids_cgroup: Path, serve: Serve
) -> None:
    """At `pids.max` a start fails; with one place more, for the model, it works without threads."""
    proxy = serve({"near": by_name("near")})
    (pids_cgroup / "cgroup.procs").write_text(str(proxy.pid))
    current = int((pids_cgroup / "pids.current").read_text())
    (pids_cgroup / "pids.max").write_text(str(current))
    refused = proxy.chat("near")
    assert status(proxy.port) == 200
    proxy.unload()
    (pids_cgroup / "pids.max").write_text(str(current + 1))
    served = proxy.chat("near")

    assert refused.status >= 500
    assert "temporarily unavailable" in error_of(refused)["message"]
    assert served.status == 200, (served.body, proxy.output())
    assert proxy.call("GET", "/ui/").status == 200
    assert proxy.get("/api/metrics/activity")
    (pids_cgroup / "pids.max").write_text("max")


@pytest.mark.parametrize("closed", ["0<&- 1>&- 2>&-", "0<&- 1>&-", "1>&- 2>&-"])
def test_serve_without_standard_descriptors_serves_and_ends_with_0(
    tmp_path: Path, closed: str
) -> None:
    """Sockets never get the numbers 0 to 2, which used to end in an abort."""
    port = free_port()
    proxy = SwapchartProcess({"models": {"near": by_name("near")}}, cwd=tmp_path, argv=["true"])
    proxy.wait(LONG_S)
    command = (
        f"exec {sys.executable} -m swapchart serve --config {tmp_path}/config.yaml "
        f"--listen 127.0.0.1:{port} {closed}"
    )
    with subprocess.Popen(
        ("sh", "-c", command), env={**os.environ, "SWAPCHART_STATE_DIR": str(tmp_path / "state")}
    ) as process:
        wait_until(lambda: status(port) == 200 or process.poll() is not None, LONG_S, what="up")
        proxy.port = port
        answer = proxy.chat("near")
        numbers = {fd: Path(f"/proc/{process.pid}/fd/{fd}").readlink().name for fd in range(3)}
        process.send_signal(signal.SIGTERM)
        code = process.wait(LONG_S)
    proxy.close()

    assert answer.status == 200
    assert not [name for name in numbers.values() if name.startswith(("socket", "anon_inode"))]
    assert code == 0
