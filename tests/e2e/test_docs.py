"""Commands and snippets of the documentation, run as they are printed, but for the port."""

from __future__ import annotations

import configparser
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from tools.swapchart_process import Serve, SwapchartProcess

from swapchart.adapters.cli.main import build_parser

pytestmark = pytest.mark.slow

DOCS = Path(__file__).parents[2] / "docs"
PAGES = {path.name: path.read_text("utf-8") for path in sorted(DOCS.glob("*.md"))}
_URL = "http://127.0.0.1:8080"
_PATH = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
LONGEST_S = 120.0

#: Commands that end by themselves and need no proxy.
_ALONE = re.compile(r"swapchart (config (check|schema)|chart (check|export(?!.*--live))|kv) ?")


def blocks(page: str, language: str) -> list[str]:
    """Return the fenced blocks of *language* in *page* that are not indented."""
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGES[page], re.MULTILINE | re.DOTALL)


def commands(page: str) -> list[str]:
    """Return the commands of the `sh` blocks of *page*."""
    return [line for block in blocks(page, "sh") for line in block.splitlines()]


def run(command: str, folder: Path, proxy: SwapchartProcess | None = None) -> str:
    """Run *command* by a shell in *folder*, which must succeed; returns what it printed."""
    if proxy is not None:
        url = f"http://127.0.0.1:{proxy.port}"
        command = command.replace(_URL, url)
        if re.match(r"swapchart history \w+$", command):  # its --url has a default
            command += f" --url {url}"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command], cwd=folder, env={**os.environ, "PATH": _PATH},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=LONGEST_S, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.mark.parametrize(
    ("page", "command"),
    [(page, line) for page in PAGES for line in commands(page) if _ALONE.match(line)],
)
def test_docs_command_runs_alone(page: str, command: str, tmp_path: Path) -> None:
    """A command that needs no proxy succeeds with the first configuration of its page."""
    (tmp_path / "config.yaml").write_text(blocks(page, "yaml")[0])

    run(command, tmp_path)


def test_docs_getting_started_works_as_printed(serve: Serve, tmp_path: Path) -> None:
    """The first configuration serves the requests that the page makes, by curl and by openai."""
    pytest.importorskip("openai")
    page = "getting-started.md"
    proxy = serve(yaml.safe_load(blocks(page, "yaml")[0])["models"], env={"PATH": _PATH})
    asked = [line for line in commands(page) if _URL in line or "history" in line]
    outputs = [run(line, tmp_path, proxy) for line in asked]

    assert len(outputs) == 5
    tortoise, hare, running, history, _ = outputs
    assert "tortoise" in tortoise
    assert "hare" in hare
    assert '"state":"ready"' in running
    assert "evicted for hare" in history
    assert proxy.running() == {}

    script = tmp_path / "client.py"
    script.write_text(blocks(page, "python")[0].replace(_URL, f"http://127.0.0.1:{proxy.port}"))
    assert "This is hare" in run(f"{sys.executable} {script}", tmp_path)


@pytest.mark.parametrize(
    ("page", "command"),
    [
        ("configuration.md", f"swapchart config plan --url {_URL}"),
        ("configuration.md", f"swapchart config reload --url {_URL}"),
        ("lifecycle.md", "swapchart history qwen"),
        (
            "lifecycle.md",
            f"swapchart chart export --live {_URL} --model qwen --format mermaid",
        ),
    ],
)
def test_docs_command_asks_a_proxy(page: str, command: str, serve: Serve, tmp_path: Path) -> None:
    """A command that asks a running proxy succeeds, and is printed on its page."""
    assert any(line.startswith(command) for line in commands(page))
    proxy = serve({"qwen": {"cmd": "sleep 60", "proxy": "http://127.0.0.1:9"}})

    run(command, tmp_path, proxy)


def test_docs_metrics_are_those_of_the_proxy(serve: Serve) -> None:
    """docs/operations.md lists each metric that a proxy has after a request and a swap."""
    models = yaml.safe_load(blocks("getting-started.md", "yaml")[0])["models"]
    models["hare"]["afterHealthy"] = "true"
    proxy = serve(models, env={"PATH": _PATH})
    assert proxy.chat("tortoise").status == 200
    assert proxy.chat("hare").status == 200
    text = proxy.call("GET", "/metrics").body.decode()
    served = set(re.findall(r"^# TYPE (\w+)", text, re.MULTILINE))
    served = {name for name in served if not name.startswith("llamaswap_gpu_")}
    listed = set(re.findall(r"`((?:swapchart|llamaswap)_\w+)`", PAGES["operations.md"]))

    assert len(served) > 30
    assert served - listed == set()
    assert {name for name in listed - served if not name.startswith("swapchart_kv_")} == set()


def test_docs_systemd_unit_is_a_unit_of_a_notifying_service() -> None:
    """The unit has the settings that the page explains, and its command is understood."""
    (unit,) = blocks("operations.md", "ini")
    parser = configparser.ConfigParser(interpolation=None)
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read_string(unit)
    service = parser["Service"]

    assert service["Type"] == "notify"
    explained = re.findall(r"^\| `(\w+)(?:=\w+)?` \|", PAGES["operations.md"], re.MULTILINE)
    assert {"TimeoutStopSec", "OOMPolicy", "Delegate", "WatchdogSec"} <= set(explained)
    assert {name for name in service if name in explained} == {
        "TimeoutStopSec", "OOMPolicy", "Delegate", "WatchdogSec"
    }  # fmt: skip
    build_parser().parse_args(service["ExecStart"].split()[1:])


def test_docs_llama_swap_command_is_understood() -> None:
    """The command for a switch from llama-swap, which is part of a list, is understood."""
    (command,) = re.findall(r"^ +(swapchart serve .*)$", PAGES["llama-swap.md"], re.MULTILINE)

    assert build_parser().parse_args(command.split()[1:]).watch_config


def test_docs_refusal_is_the_one_of_the_proxy(serve: Serve) -> None:
    """The refusal that docs/security.md shows is the message of the response, and is logged."""
    (shown,) = re.findall(r"request refused: origin_not_allowed: (.*)", _one_line("security.md"))
    config = {"apiKeys": ["sk-test"]}
    proxy = serve({"qwen": {"cmd": "sleep 60", "proxy": "http://127.0.0.1:9"}}, config=config)
    proxy.headers = {"Origin": "https://chat.example.org"}
    answer = proxy.call("POST", "/api/models/unload")

    assert answer.status == 403
    assert answer.json()["error"]["message"] == shown
    assert proxy.wait_said(f"request refused: origin_not_allowed: {shown}") == 1


def _one_line(page: str) -> str:
    (block,) = blocks(page, "text")
    return " ".join(block.splitlines())
