"""Models in containers of a real podman, through the proxy."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
from tools.net import free_port, wait_until
from tools.podman import IMAGE, LIMITS, Podman, podman
from tools.registry import registry
from tools.swapchart_process import Serve, SwapchartProcess, demo_model, error_of

from swapchart.adapters.cli.main import main

__all__ = ["podman"]

pytestmark = pytest.mark.slow


def engine(podman: Podman, **keys: Any) -> dict[str, Any]:
    return {"containerEngine": list(podman.command), **keys}


def log_of(proxy: SwapchartProcess, model: str, until: str) -> str:
    """Return what the log of *model* holds up to the pattern *until*."""
    with proxy.log_of(model) as reader:
        reader.read_until(until)
        return reader.text


def swapchart(*argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "swapchart", *argv], capture_output=True, text=True, timeout=60,
        check=False,
    )  # fmt: skip


def test_container_serves_swaps_and_is_removed(serve: Serve, podman: Podman) -> None:
    """Start, request, facts, output, swap to a local process and back, and the shutdown."""
    model = {"container": podman.demo("--model", "a"), "env": ["GREETING=hello world"]}
    proxy = serve({"a": model, "b": demo_model("b")}, config=engine(podman, memory="observe"))
    assert proxy.chat("a").status == 200
    row = proxy.running()["a"]
    (name,) = podman.names()
    assert row["container"] == {"engine": "podman", "image": IMAGE, "name": name}
    assert name.startswith("swapchart-")
    assert name.endswith("-a")
    assert row["cmd"].startswith(f"podman run {IMAGE} -m swapchart.adapters.demo --port")
    assert psutil.Process(row["pid"]).environ()["GREETING"] == "hello world"
    wait_until(
        lambda: (proxy.running()["a"]["memory"]["RAM"]["seen"] or 0) > 1 << 20,
        what="the memory of the processes of the container",
    )
    url = ("--url", f"http://127.0.0.1:{proxy.port}")
    said = swapchart("explain", "a", *url).stdout
    assert f"runs in podman: image {IMAGE}, container {name}\n" in said
    assert f"podman run {IMAGE}" in swapchart("ps", *url).stdout

    assert proxy.chat("b").status == 200
    wait_until(lambda: not podman.names(), what="the container is removed")
    assert proxy.chat("a").status == 200
    assert podman.names() == [name]
    assert proxy.stop() == 0
    assert podman.names() == []


def test_hooks_run_in_the_container_and_on_the_host(
    serve: Serve, podman: Podman, tmp_path: Path
) -> None:
    """With the variables of hooks; the health check may run in the container too."""
    seen = tmp_path / "seen"
    inside = 'test ! -e "$0" && echo "$SWAPCHART_MODEL at $SWAPCHART_HOOK in $PWD with $GREETING"'
    port = "import os, urllib.request as u; u.urlopen('http://127.0.0.1:' + os.environ['PORT'])"
    model = {
        "container": podman.demo("--model", "a", health=[sys.executable, "-c", port]),
        "checkEndpoint": "/no/such/endpoint",
        "env": ["GREETING=hello", "HOME=/", "PORT=${PORT}"],
        "afterHealthy": {"run": ["sh", "-c", inside, str(tmp_path)], "in": "container"},
        "beforeStop": [
            {"run": ["sh", "-c", "exit 3"], "in": "container"},
            {"run": ["sh", "-c", f"echo $HOME $SWAPCHART_PID > {seen}"]},
        ],
    }
    proxy = serve({"a": model}, config=engine(podman))
    assert proxy.chat("a").status == 200
    pid = proxy.running()["a"]["pid"]
    assert "a at afterHealthy in / with hello" in log_of(proxy, "a", "a at afterHealthy")
    proxy.unload("a")
    rows = proxy.get("/api/models/a/history")["data"]
    hooks = [hook for row in rows for hook in row["hooks"]]
    assert {"ok", "failed"} == {hook["outcome"] for hook in hooks}
    assert any(hook["detail"] == "exit code 3" for hook in hooks)
    assert seen.read_text().split() == [os.environ["HOME"], str(pid)]


def test_container_behind_a_port_is_reached(serve: Serve, podman: Podman) -> None:
    """The server listens on a port of its own, and the engine forwards ours to it."""
    port = free_port()
    works = ("run", "--rm", "--pull", "never", "-p", f"127.0.0.1:{port}:80", *LIMITS)
    done = subprocess.run(
        [*podman.command, *works, "-v", "/usr:/usr:ro", IMAGE, "/bin/true"], capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        pytest.skip(f"NOT TESTED: podman cannot publish a port here: {done.stderr[-300:]}")
    container = podman.demo(
        "--model", "a", "--host", "0.0.0.0", listen="8000", network="", port=8000
    )
    proxy = serve({"a": {"container": container}}, config=engine(podman))

    assert proxy.chat("a").status == 200


def test_container_ends_with_a_proxy_that_is_killed(
    serve: Serve, podman: Podman, tmp_path: Path
) -> None:
    """The guard ends it; what remains of it is removed by the next proxy, before any request."""
    options = ("--state-dir", str(tmp_path / "state"))
    models = {"a": {"container": podman.demo("--model", "a")}}
    proxy = serve(models, config=engine(podman), options=options)
    assert proxy.chat("a").status == 200
    process = psutil.Process(proxy.running()["a"]["pid"])
    proxy.note_guard()
    proxy.signal(signal.SIGKILL)
    proxy.wait()
    wait_until(lambda: not process.is_running(), what="the guard has ended the container")

    again = serve(models, config=engine(podman), options=options)
    wait_until(lambda: not podman.names(), what="the next proxy has removed it")
    assert again.chat("a").status == 200
    again.may_log = "an earlier run"


def test_container_that_even_the_guard_left_is_removed(
    serve: Serve, podman: Podman, tmp_path: Path
) -> None:
    """A container of another proxy stays, though its name begins like ours."""
    options = ("--state-dir", str(tmp_path / "state"))
    models = {"a": {"container": podman.demo("--model", "a")}}
    proxy = serve(models, config=engine(podman), options=options)
    other = serve(models, config=engine(podman))
    assert proxy.chat("a").status == other.chat("a").status == 200
    process = psutil.Process(proxy.running()["a"]["pid"])
    kept = other.running()["a"]["container"]["name"]
    proxy.note_guard()
    for guard in proxy.find("guard_process.py"):
        guard.kill()
    proxy.signal(signal.SIGKILL)
    proxy.wait()
    assert process.is_running()

    serve(models, config=engine(podman), options=options)
    wait_until(lambda: podman.names() == [kept], what="the next proxy has removed it")
    wait_until(lambda: not process.is_running(), what="and its server has ended")
    assert other.chat("a").status == 200


def test_image_is_pulled_before_the_start(serve: Serve, podman: Podman, tmp_path: Path) -> None:
    """The log says so and shows the progress; the second start needs no registry."""
    podman.run("push", "--format", "v2s2", IMAGE, f"dir:{tmp_path / 'image'}")
    conf = tmp_path / "registries.conf"
    with registry(tmp_path / "image") as port:
        conf.write_text(f'[[registry]]\nlocation = "127.0.0.1:{port}"\ninsecure = true\n')
        image = f"127.0.0.1:{port}/models/demo:1"
        models = {
            "a": {"container": podman.demo("--model", "a", image=image, pull="missing")},
            "b": {"container": podman.demo("--model", "b", image=f"{image}-x", pull="never")},
        }
        proxy = serve(models, config=engine(podman), env={"CONTAINERS_REGISTRIES_CONF": str(conf)})
        assert proxy.chat("a").status == 200
    text = log_of(proxy, "a", "Copying blob")
    assert f"[swapchart] the image {image} is not on this machine; pulling it" in text
    message = error_of(proxy.chat("b"))["message"]
    assert f"the image {image}-x is not on this machine: pull it with `podman pull" in message
    proxy.unload("a")
    assert proxy.chat("a").status == 200  # though the registry is gone


def test_container_that_cannot_start_is_explained_to_the_client(
    serve: Serve, podman: Podman
) -> None:
    """One clear sentence; nothing is left behind."""
    wrong: dict[str, tuple[dict[str, Any], str]] = {
        "image": (
            {"pull": "missing", "image": "127.0.0.1:1/none:1"}, "pull 127.0.0.1:1/none:1",
        ),
        "program": ({"entrypoint": "/no/such"}, 'exec: "/no/such": stat /no/such: no such file'),
        "exit": ({"args": ["-c", "raise SystemExit(9)", "${PORT}"]}, "exit code 9"),
    }  # fmt: skip
    models = {name: {"container": podman.demo(**keys)} for name, (keys, _) in wrong.items()}
    proxy = serve(models, config=engine(podman))
    for name, (_, words) in wrong.items():
        assert words in error_of(proxy.chat(name))["message"]
    wait_until(lambda: not podman.names(), what="the containers are removed")


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["no-such-engine"], "cannot start no-such-engine: No such file or directory; install"),
        (["docker", "--host", "unix:///no/such.sock"], "docker does not respond: Cannot con"),
    ],
)
def test_engine_that_is_not_there_is_explained_to_the_client(
    serve: Serve, command: list[str], words: str
) -> None:
    """The log of the proxy says so at its start."""
    if command[0] == "docker" and shutil.which("docker") is None:
        pytest.skip("NOT TESTED: no docker")
    model = {"container": {"image": "i", "port": 80, "pull": "never"}}
    proxy = serve({"a": model}, config={"containerEngine": command})
    proxy.wait_said("no model in a container can start")

    assert words in error_of(proxy.chat("a"))["message"]


def test_config_check_finds_missing_engines_and_images(
    podman: Podman, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Both are warnings, with what to do; a configuration that works has none."""
    path = tmp_path / "config.yaml"

    def said(image: str, command: str, pull: str = "never") -> str:
        path.write_text(
            f"containerEngine: {command}\nmodels:\n  m:\n    container:\n"
            f"      {{image: {image}, pull: {pull}, port: 80}}\n"
        )
        assert main(["config", "check", str(path), "--state-dir", str(tmp_path / "state")]) == 0
        return capsys.readouterr().out

    command = " ".join(podman.command)
    assert said(IMAGE, command).endswith(": ok\n")
    lacks = "the image localhost/no-such:1 is not on this machine; "
    assert f"{lacks}pull it" in said("localhost/no-such:1", command)
    assert f"{lacks}its first start pulls it" in said("localhost/no-such:1", command, "missing")
    assert "the container engine 'no-such' is not in PATH" in said(IMAGE, "no-such")
