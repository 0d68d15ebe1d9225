"""The installation as the documents print it, and what it installs, in an empty home directory."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tools import shown
from tools.documents import DOCUMENTS, PAGES, ROOT, blocks
from tools.make_tiny_gguf import write_tiny_gguf
from tools.net import free_port
from tools.swapchart_process import Serve

pytestmark = pytest.mark.slow

LONGEST_S = 300.0  # what is not in the cache of pip has to be fetched
_START = PAGES["getting-started.md"]
_INSTALL, _RUN = (
    block for block in blocks(_START, "sh") if re.match(r"python3 -m venv|swapchart config", block)
)
_README_FOLDER, _README_CONFIGURATION = (
    block.splitlines()
    for block in blocks(DOCUMENTS["README.md"], "sh")
    if block.startswith(("pip", "swapchart config"))
)


def shell(script: str, env: dict[str, str], cwd: Path) -> str:
    """Run *script*, which must succeed; returns what it printed."""
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script], cwd=cwd, env=env, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=LONGEST_S, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Variables of a shell in which the three lines of the page were entered in a checkout."""
    if importlib.util.find_spec("pip") is None:
        pytest.skip("NOT TESTED: this environment has no pip, whose cache is needed")
    home = tmp_path_factory.mktemp("home")
    python = home / "bin" / "python3"
    python.parent.mkdir()
    python.write_text(f'#!/bin/sh\nexec "{_base_python()}" "$@"\n')
    python.chmod(0o755)
    kept = {name: os.environ[name] for name in os.environ if name.startswith(("PIP_", "SSL_"))}
    cache = subprocess.run(
        [sys.executable, "-m", "pip", "cache", "dir"], capture_output=True, text=True, check=True
    ).stdout.strip()
    env = {
        **kept, "HOME": str(home), "PATH": f"{python.parent}:/usr/bin:/bin", "PIP_CACHE_DIR": cache,
        "SWAPCHART_STATE_DIR": str(home / "state"),
    }  # fmt: skip
    if subprocess.run([_base_python(), "-c", "import ensurepip"], check=False).returncode:
        pytest.skip("NOT TESTED: no ensurepip; on Debian: apt-get install python3-venv")
    path = shell(f"{_INSTALL}echo\necho $PATH", env, ROOT).splitlines()[-1]
    return {**env, "PATH": path}


def _base_python() -> str:
    return str(getattr(sys, "_base_executable", sys.executable))


def test_docs_installation_serves_the_first_configuration(
    installed: dict[str, str], serve: Serve, tmp_path: Path
) -> None:
    """The command that was installed checks, serves and swaps as the page says."""
    check, command = _RUN.splitlines()
    text = blocks(_START, "yaml")[0]
    (tmp_path / "config.yaml").write_text(text)
    assert shell("command -v swapchart", installed, tmp_path).startswith(installed["HOME"])
    shell(check, installed, tmp_path)
    port = free_port()
    command = command.replace("8080", str(port))
    proxy = serve(config=text, argv=["sh", "-c", f"exec {command}"], env=installed)

    assert proxy.port == port
    assert proxy.chat("tortoise").status == 200
    assert proxy.chat("hare").status == 200
    assert [*proxy.running()] == ["hare"]
    assert "evicted for hare" in shell(
        f"swapchart history tortoise --url http://127.0.0.1:{port}", installed, tmp_path
    )


def test_docs_readme_installation_checks_its_configuration(
    installed: dict[str, str], tmp_path: Path
) -> None:
    """The install of README.md is that of the page, and its check succeeds."""
    install, *_ = _README_FOLDER
    assert f"/{install}\n" in _INSTALL
    check, _ = _README_CONFIGURATION
    (text,) = blocks(DOCUMENTS["README.md"], "yaml")
    (tmp_path / "config.yaml").write_text(text)

    shell(check, installed, tmp_path)
    assert "listen" in shell("swapchart serve --help", installed, tmp_path)


def test_docs_readme_serves_a_folder_of_models_in_two_commands(
    installed: dict[str, str], serve: Serve, tmp_path: Path
) -> None:
    """What `init` writes is what `serve` finds."""
    _, init, command = _README_FOLDER
    models = Path(installed["HOME"]) / "models"
    models.mkdir()
    write_tiny_gguf(models / "tiny-Q4_0.gguf")
    said = shell(init, installed, tmp_path)
    assert "config.yaml: 1 model\n" in said
    assert said.endswith("next: swapchart serve\n")
    text = (tmp_path / "config.yaml").read_text()
    command, _, _ = command.partition("#")
    script = f"exec {command} --listen 127.0.0.1:{free_port()}"
    proxy = serve(config=text, argv=["sh", "-c", script], env=installed)

    assert [row["id"] for row in proxy.get("/v1/models")["data"]] == ["tiny"]


def test_docs_table_of_installs_names_the_extras(installed: dict[str, str]) -> None:
    """Each row of the table names an extra of the package, but the first, which has none."""
    rows = re.findall(r"^\| `\.(?:\[(\w+)\])?` \|", _START, re.MULTILINE)
    show = (
        "from importlib.metadata import metadata as m; print(m('swapchart').json['provides_extra'])"
    )
    printed = re.findall(r"\w+", shell(f'python -c "{show}"', installed, ROOT))

    assert rows[0] == ""
    assert {*rows[1:]} == {"proxy", "all", "otel"} <= {*printed}


@pytest.mark.parametrize(("page", "command"), shown.items(shown.TOOLS))
def test_docs_tool_installs_the_command(page: str, command: str, tmp_path: Path) -> None:
    """Each tool installs swapchart from a checkout with one line, and it runs."""
    if os.environ.get("SWAPCHART_LONG") != "1":
        pytest.skip(f"NOT TESTED: `{command}` fetches packages; SWAPCHART_LONG=1 runs it")
    tool = command.partition(" ")[0]
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    pip = [sys.executable, "-m", "pip", "--python", str(venv / "bin" / "python"), "install", "-q"]
    subprocess.run([*pip, tool], check=True)
    folders = ("UV_TOOL_DIR", "UV_CACHE_DIR", "PIPX_HOME")
    env = {**os.environ, "PATH": f"{venv}/bin:{os.environ['PATH']}"}
    env |= {name: str(tmp_path / name) for name in folders}
    env |= dict.fromkeys(("UV_TOOL_BIN_DIR", "PIPX_BIN_DIR"), str(tmp_path / "bin"))
    shell(command, env, ROOT)

    assert shell(f"{tmp_path}/bin/swapchart --version", env, tmp_path).startswith("swapchart ")
