"""Containers as the documents advise them."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from tools import raw, shown
from tools.documents import PAGES, ROOT, commands
from tools.net import free_port, wait_until

pytestmark = pytest.mark.slow


def options_of(engine: str, command: str) -> set[str]:
    """Return the options that the help of a command of *engine* lists."""
    done = subprocess.run([engine, command, "--help"], capture_output=True, text=True, check=True)
    return set(re.findall(r"(?<!\S)--?[a-z][\w-]*", done.stdout))


@pytest.mark.parametrize(("page", "command"), shown.items(shown.ENGINE))
def test_docs_option_of_a_container_engine_exists(page: str, command: str) -> None:
    """The subcommands and options that are shown are those of docker and of podman."""
    engines = [name for name in ("docker", "podman") if shutil.which(name)]
    if not engines:
        pytest.skip("NOT TESTED: no docker and no podman; on Debian: apt-get install podman")
    _, subcommand, *options = command.split()

    for engine in engines:
        known = options_of(engine, subcommand)
        assert known
        assert {option for option in options if option.startswith("-")} - known == set()


IMAGE = "localhost/swapchart-docs-test"
KEY = "sk-of-the-container"


def podman(*argv: str) -> str:
    """Run a command of podman, which must succeed; returns what it printed."""
    done = subprocess.run(
        ["podman", *argv], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture
def mounts(tmp_path: Path) -> list[str]:
    """Options that give a container without files of its own this machine's Python and packages."""
    if os.geteuid() != 0 or shutil.which("podman") is None:
        pytest.skip("NOT TESTED: needs podman, as root; on Debian: apt-get install podman runc")
    if not Path("/usr/libexec/podman/catatonit").exists() and not shutil.which("catatonit"):
        pytest.skip("NOT TESTED: --init needs catatonit; on Debian: apt-get install catatonit")
    empty = tmp_path / "empty.tar"
    with tarfile.open(empty, "w") as tar:
        for link in ("bin", "lib", "lib64"):
            entry = tarfile.TarInfo(link)
            entry.type, entry.linkname = tarfile.SYMTYPE, f"usr/{link}"
            tar.addfile(entry)
    podman("import", str(empty), IMAGE)
    folders = {Path("/usr"), ROOT, Path(sys.prefix), Path(sys.base_prefix).resolve()}
    folders = {path for path in folders if path.parts[:2] != ("/", "usr")} | {Path("/usr")}
    limits = ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"]
    options = [*limits, *(word for path in folders for word in ("-v", f"{path}:{path}:ro"))]
    works = ["podman", "run", "--rm", "--init", *options, IMAGE, sys.executable, "-c", "1"]
    done = subprocess.run(works, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"NOT TESTED: podman can run no container here: {done.stderr[-300:]}")
    return options


def test_docs_container_serves_with_keys_and_stops_in_order(
    mounts: list[str], tmp_path: Path
) -> None:
    """As the page advises: all interfaces and keys, an init, a volume of state, time to stop."""
    name, port = f"swapchart-docs-{os.getpid()}", free_port()
    model = {
        "cmd": [
            sys.executable,
            "-m",
            "swapchart.adapters.demo",
            "--model",
            "m",
            "--port",
            "${PORT}",
        ]
    }
    (tmp_path / "config.yaml").write_text(json.dumps({"apiKeys": [KEY], "models": {"m": model}}))
    serve = [
        sys.executable, "-m", "swapchart", "serve", "--config", "/data/config.yaml",
        "--listen", "0.0.0.0:8080", "--state-dir", "/data/state",
    ]  # fmt: skip
    podman(
        "run", "--init", "--detach", "--name", name, "-p", f"127.0.0.1:{port}:8080", *mounts,
        "-v", f"{tmp_path}:/data", IMAGE, *serve,
    )  # fmt: skip
    try:
        wait_until(lambda: is_healthy(port), 60, what=lambda: podman("logs", name))
        with_key = {"Authorization": f"Bearer {KEY}"}
        assert raw.call(port, "GET", "/v1/models").status == 401
        body = {"model": "m", "messages": [{"role": "user", "content": "Hello"}]}
        chat = raw.call(port, "POST", "/v1/chat/completions", value=body, headers=with_key)
        assert chat.status == 200, chat.body
        assert "python" not in podman("exec", name, "cat", "/proc/1/comm")
        podman("stop", "-t", "120", name)
        assert podman("inspect", "--format", "{{.State.ExitCode}}", name).strip() == "0"
    finally:
        subprocess.run(["podman", "rm", "-f", "-t", "0", name], capture_output=True, check=False)

    assert (tmp_path / "state" / "journal.db").exists()


def is_healthy(port: int) -> bool:
    """Return True if the proxy behind *port* responds."""
    try:
        return raw.status(port) == 200
    except OSError:
        return False


def test_docs_container_has_the_options_of_ci() -> None:
    """The options of the page are those by which .ci/container builds and runs the image."""
    script = (ROOT / ".ci" / "container").read_text()
    page = PAGES["operations.md"]
    shown_lines = [line for line in commands(page) if line.startswith("podman")]
    assert len(shown_lines) == 2
    for line in shown_lines:
        options = re.findall(r"(?<!\S)--?[a-z][\w-]*", line)
        assert [option for option in options if option not in script] == []


def test_container_check_without_its_programs_is_skipped_loudly(tmp_path: Path) -> None:
    """.ci/run and ./dev test-all run it as a whole, which fetches packages of Debian."""
    for name in ("sh", "id", "dirname"):
        (tmp_path / name).symlink_to(shutil.which(name) or name)
    script = ROOT / ".ci" / "container"
    done = subprocess.run(
        [script], env={"PATH": str(tmp_path)}, capture_output=True, text=True, check=False
    )

    assert (done.returncode, done.stdout) == (0, "")
    missing = "no podman; on Debian: apt-get install podman" if os.geteuid() == 0 else "needs root"
    assert done.stderr.startswith(f"NOT TESTED: the container: {missing}")
