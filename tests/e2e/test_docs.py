"""Commands and snippets of the documentation, run as they are printed, but for the port."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from tools import shown
from tools.documents import DOCUMENTS, PAGES, blocks, commands
from tools.swapchart_process import Serve, SwapchartProcess

pytestmark = pytest.mark.slow

_URL = "http://127.0.0.1:8080"
_PATH = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
LONGEST_S = 120.0

GETTING_STARTED = PAGES["getting-started.md"]


def run(command: str, folder: Path, proxy: SwapchartProcess | None = None) -> str:
    """Run *command* by a shell in *folder*, which must succeed; returns what it printed."""
    if proxy is not None:
        url = f"http://127.0.0.1:{proxy.port}"
        command = command.replace(_URL, url)
        if "--url" not in command and re.match(
            r"swapchart (history|config (plan|reload))", command
        ):
            command += f" --url {url}"  # has a default
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command], cwd=folder, env={**os.environ, "PATH": _PATH},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=LONGEST_S, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.mark.parametrize(("page", "command"), [*shown.items(shown.RUNS_ALONE), *shown.alone()])
def test_docs_command_runs_alone(page: str, command: str, tmp_path: Path) -> None:
    """A command that needs no proxy succeeds with the first configuration of its page."""
    if re.search(r"--format (svg|png)", command) and not shutil.which("dot"):
        pytest.skip("NOT TESTED: no dot; on Debian: apt-get install graphviz")
    configurations = blocks(DOCUMENTS[page], "yaml") or blocks(GETTING_STARTED, "yaml")
    (tmp_path / "config.yaml").write_text(configurations[0])
    overlays = [text for text in configurations if text.startswith("lifecycle:")]
    for overlay in overlays:
        (tmp_path / "FILE").write_text(yaml.safe_dump(yaml.safe_load(overlay)["lifecycle"]))

    run(command, tmp_path)


def test_docs_chart_check_explores_what_the_page_says(tmp_path: Path) -> None:
    """`swapchart chart check` finds nothing wrong, in as many situations as the page says."""
    found = re.findall(r"\d+", run("swapchart chart check", tmp_path).partition("sets of")[0])
    said = " ".join(PAGES["lifecycle.md"].split())
    claim = re.search(
        r"(\d+) configurations with .* for (\d+) sets of parameters\. "
        r"These are (\d+,\d+) situations and (\d+,\d+) steps",
        said,
    )
    assert claim is not None
    configurations, sets, situations, steps = (text.replace(",", "") for text in claim.groups())

    assert found == [situations, steps, configurations, sets]


def test_docs_diagrams_are_embedded_and_checked(tmp_path: Path) -> None:
    """The markers of the page get their picture, and then nothing is stale."""
    if not shutil.which("dot"):
        pytest.skip("NOT TESTED: no dot; on Debian: apt-get install graphviz")
    (markers,) = blocks(PAGES["diagrams.md"], "markdown")
    (tmp_path / "README.md").write_text(markers.replace("order.yaml", "lifecycle"))
    run("swapchart chart diagrams --embed README.md", tmp_path)

    assert [*tmp_path.glob("*.svg")]
    run("swapchart chart diagrams --embed README.md --check", tmp_path)


def test_docs_diagrams_are_drawn_in_python(tmp_path: Path) -> None:
    """The example of the page draws two pictures of a plausible size."""
    if not shutil.which("dot"):
        pytest.skip("NOT TESTED: no dot; on Debian: apt-get install graphviz")
    (tmp_path / "draw.py").write_text(blocks(PAGES["diagrams.md"], "python")[0])

    assert run(f"{sys.executable} draw.py", tmp_path) == "True True\n"


def test_docs_getting_started_works_as_printed(serve: Serve, tmp_path: Path) -> None:
    """The first configuration serves the requests that the page makes, by curl and by openai."""
    pytest.importorskip("openai")
    page = GETTING_STARTED
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


@pytest.mark.parametrize(("page", "command"), shown.items(shown.ASKS_A_PROXY))
def test_docs_command_asks_a_proxy(page: str, command: str, serve: Serve, tmp_path: Path) -> None:
    """A command that asks a running proxy succeeds, and is printed on its page."""
    assert command in DOCUMENTS[page]
    proxy = serve({"qwen": {"cmd": "sleep 60", "proxy": "http://127.0.0.1:9"}})

    run(command.replace("<model>", "qwen"), tmp_path, proxy)


def test_docs_metrics_are_those_of_the_proxy(serve: Serve) -> None:
    """docs/monitoring.md lists each metric that a proxy has after a request and a swap."""
    models = yaml.safe_load(blocks(GETTING_STARTED, "yaml")[0])["models"]
    models["hare"]["afterHealthy"] = "true"
    proxy = serve(models, env={"PATH": _PATH}, config={"memory": "auto"})
    assert proxy.chat("tortoise").status == 200
    assert proxy.chat("hare").status == 200
    pages = [proxy.call("GET", target).body for target in ("/metrics", "/metrics/models")]
    text = b"".join(pages).decode()
    served = set(re.findall(r"^# TYPE (\w+)", text, re.MULTILINE))
    served = {name for name in served if name.startswith(("swapchart_", "llamaswap_"))}
    served = {name for name in served if not name.startswith("llamaswap_gpu_")}
    listed = set(re.findall(r"`((?:swapchart|llamaswap)_\w+)`", PAGES["monitoring.md"]))

    assert len(served) > 30
    assert served - listed == set()
    assert {name for name in listed - served if not name.startswith("swapchart_kv_")} == set()


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
    (block,) = blocks(PAGES[page], "text")
    return " ".join(block.splitlines())
