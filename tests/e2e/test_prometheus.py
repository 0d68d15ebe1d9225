"""The pages of metrics and the Grafana dashboard, as Prometheus and promtool see them.

One proxy has served requests, swapped, failed, saved a conversation and run hooks. Its GPU is an
nvidia-smi and a driver library of the tests.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from tools import prometheus, raw
from tools.documents import PAGES, ROOT, blocks
from tools.net import LONG_S, free_port, wait_until
from tools.swapchart_process import CHAT, Serve, SwapchartProcess, demo_model

import swapchart

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler: NVML cannot be replaced"),
]

DASHBOARD = ROOT / "examples" / "grafana" / "swapchart.json"
_SMI = '#!/bin/sh\necho "0, A GPU of a test, GPU-1, 50, 60, 10, 5, 1024, 24576, 30, 100"\n'
_UUID = "GPU-00000000-0000-0000-0000-000000000001"
_WORDS = "the tree and the river wait for a red stone in the green time of the one queue " * 8
#: The servers' own names are passed on as they are: llama-server's contain a colon.
_FOREIGN = re.compile(r"llamacpp:\w+ metric names should not contain ':'")
_SUBSTITUTES = {
    "$__rate_interval": "1m", "${datasource}": "x", "$instance": ".*", "$model": ".*",
}  # fmt: skip


@pytest.fixture(scope="module")
def busy(serve_module: Serve, tmp_path_factory: pytest.TempPathFactory) -> SwapchartProcess:
    """A proxy that has served, swapped and failed."""
    folder = tmp_path_factory.mktemp("programs")
    smi, llama, weights = (folder / name for name in ("nvidia-smi", "llama-server", "weights"))
    smi.write_text(_SMI)
    llama.write_text(f'#!/bin/sh\nexec {sys.executable} -m swapchart.adapters.demo "$@"\n')
    for program in (smi, llama):
        program.chmod(0o755)
    weights.write_bytes(b"weights")
    driver = folder / "libnvidia-ml.so.1"
    source = ROOT / "tests" / "tools" / "nvml.c"
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", driver, source], check=True)
    (folder / "behavior").write_text("works")
    keeping = [
        str(llama), "--model", str(weights), "--alias", "kept", "--parallel", "1",
        "--port", "${PORT}", "--slot-save-path", str(folder / "slots"),
        "--prefill-tokens-per-second", "0", "--tokens-per-second", "0",
    ]  # fmt: skip
    memory = {"RAM": "60MiB", "GPU0": "10MiB"}
    models = {
        "one": demo_model("one", afterHealthy="true", memory=memory),
        "kept": {
            "cmd": shlex.join(keeping).replace("'${PORT}'", "${PORT}"),
            "proxy": "http://127.0.0.1:${PORT}",
            "kv": {"mode": "keep", "minTokens": 10}, "memory": memory,
        },
        "broken": {"cmd": "false ${PORT}", "proxy": "http://127.0.0.1:${PORT}", "memory": memory},
    }  # fmt: skip
    proxy = serve_module(
        models,
        env={
            "PATH": f"{folder}:/usr/bin:/bin", "LD_LIBRARY_PATH": str(folder),
            "FAKE_NVML": str(folder / "behavior"),
        },
        config={
            "memory": {"pools": {"RAM": {"limit": "100MiB"}}}, "performance": {"every": "5s"},
            "apiKeys": [{"key": "sk", "scopes": ["admin", "infer"]}],
        },
    )  # fmt: skip
    proxy.headers = {"Authorization": "Bearer sk"}
    for name in ("one", "kept", "one", "kept"):
        value = {"model": name, "messages": [{"role": "user", "content": _WORDS}], "max_tokens": 2}
        assert proxy.call("POST", CHAT, value=value).status == 200
    assert proxy.chat("broken").status >= 500
    assert proxy.chat("one").status == 200
    for name in ("llamaswap_gpu", 'swapchart_model_memory_used_bytes{device="",kind="ram"'):
        wait_until(lambda name=name: name in _metrics(proxy), LONG_S, what=name)  # type: ignore[misc]
    return proxy


def _metrics(proxy: SwapchartProcess, target: str = "/metrics") -> str:
    answer = proxy.call("GET", target)
    assert answer.status == 200
    assert answer.header("content-type") == "text/plain; version=0.0.4; charset=utf-8"
    return answer.body.decode()


def _samples(page: str) -> list[tuple[str, dict[str, str], float]]:
    return [
        (sample.name, dict(sample.labels), sample.value)
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    ]


def test_metrics_pages_are_clean_by_promtool(busy: SwapchartProcess) -> None:
    """Promtool's linter has nothing to say about our names, types and help texts."""
    page = _metrics(busy)
    of_models = _metrics(busy, "/metrics/models")

    assert "swapchart_kv_restored_tokens_total" in page
    assert 'swapchart_model_memory_used_bytes{device="",kind="ram"' in page
    assert prometheus.check_metrics(page) == []
    assert 'llamacpp:tokens_predicted_total{model="one"}' in of_models
    foreign = prometheus.check_metrics(of_models)
    assert [line for line in foreign if not _FOREIGN.fullmatch(line)] == []
    assert len(foreign) == 3


def test_metrics_tell_version_and_server(busy: SwapchartProcess) -> None:
    (info,) = [labels for name, labels, _ in _samples(_metrics(busy)) if "build_info" in name]
    python = ".".join(map(str, sys.version_info[:3]))

    assert info["version"] == swapchart.__version__
    assert (info["server"], info["python"]) == ("hypercorn", python)
    assert info["compiled"] in ("true", "false")


def test_metrics_of_memory_name_the_device(busy: SwapchartProcess) -> None:
    """Each model's memory is there by pool, with the id of a GPU."""
    found = {
        (labels["model"], labels["pool"]): (labels["kind"], labels["device"], value)
        for name, labels, value in _samples(_metrics(busy))
        if name == "swapchart_model_memory_claimed_bytes"
    }

    assert found["one", "RAM"] == ("ram", "", 60 << 20)
    assert found["one", "GPU0"] == ("gpu", _UUID, 10 << 20)


# ---- the dashboard
def _expressions() -> Iterator[tuple[str, str]]:
    """Yield (title of the panel, expression) of the dashboard, with the variables filled in."""
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        for target in panel.get("targets", ()):
            expression = target["expr"]
            for name, value in _SUBSTITUTES.items():
                expression = expression.replace(name, value)
            assert "$" not in expression, expression
            yield panel["title"], expression


def test_dashboard_is_one_that_grafana_imports() -> None:
    """Schema version, unique ids, a grid without overlaps, and a data source that is a variable."""
    board = json.loads(DASHBOARD.read_text())
    ids = [panel["id"] for panel in board["panels"]]
    cells: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        place = panel["gridPos"]
        covered = {
            (place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])
        }
        assert not covered & cells, panel["title"]
        assert place["x"] + place["w"] <= 24
        cells |= covered
        for target in panel.get("targets", ()):
            assert target["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        assert panel["type"] == "row" or (panel["targets"] and panel["description"])

    assert board["schemaVersion"] in range(36, 43)
    assert board["uid"] == "swapchart"
    assert len(ids) == len(set(ids)) > 25
    assert [each["name"] for each in board["templating"]["list"]] == [
        "datasource", "instance", "model",
    ]  # fmt: skip


def test_dashboard_uses_only_metrics_and_labels_that_exist(busy: SwapchartProcess) -> None:
    """Each name of a metric is on a page of a real proxy, with each label that is matched."""
    known: dict[str, set[str]] = {}
    for name, labels, _ in _samples(_metrics(busy) + _metrics(busy, "/metrics/models")):
        known.setdefault(name, {"instance", "job"}).update(labels)
    used: set[str] = set()
    for title, expression in _expressions():
        for name, matchers in re.findall(r"\b((?:swapchart|llamaswap)_\w+)\{([^}]*)\}", expression):
            used.add(name)
            # A node is only there with a cluster.
            matched = set(re.findall(r"(\w+)=?[=!~]", matchers))
            if not name.startswith("swapchart_node_"):
                assert matched <= known[name], (title, name)
    text = DASHBOARD.read_text()
    for name, label in re.findall(r"label_values\((\w+), (\w+)\)", text):
        assert label in known[name]

    assert len(used) > 30
    assert used == set(re.findall(r"\b(?:swapchart|llamaswap)_\w+(?=\{)", text))


def test_dashboard_groups_by_labels_that_exist(busy: SwapchartProcess) -> None:
    """Each label of ``by`` and of a legend is one of a metric in the same expression."""
    known: dict[str, set[str]] = {}
    for name, labels, _ in _samples(_metrics(busy) + _metrics(busy, "/metrics/models")):
        known.setdefault(name, {"instance"}).update(labels)
    board = json.loads(DASHBOARD.read_text())
    for target in (t for panel in board["panels"] for t in panel.get("targets", ())):
        names = re.findall(r"\b((?:swapchart|llamaswap)_\w+)\{", target["expr"])
        if any(name.startswith("swapchart_node_") for name in names):
            continue
        wanted = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
        for group in re.findall(r"by \(([^)]*)\)", target["expr"]):
            wanted |= set(group.split(", "))
        for name in names:
            assert wanted <= known[name], (target["expr"], name)


def test_dashboard_expressions_are_accepted_by_promtool(tmp_path: Path) -> None:
    rules = [
        {"record": f"panel:{number}", "expr": expression}
        for number, (_, expression) in enumerate(_expressions())
    ]
    path = tmp_path / "rules.yaml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))

    assert f"{len(rules)} rules found" in prometheus.check("rules", path)


# ---- a real Prometheus
def _configuration(port: int) -> str:
    (shown,) = blocks(PAGES["monitoring.md"], "yml")
    text = shown.replace("127.0.0.1:8080", f"127.0.0.1:{port}")
    return "global: { scrape_interval: 1s }\n" + text.replace("sk-for-prometheus", "sk")


def test_docs_prometheus_configuration_scrapes_both_pages(
    busy: SwapchartProcess, tmp_path: Path
) -> None:
    """A Prometheus with the jobs of the page has both pages, and evaluates each expression."""
    path, port = tmp_path / "prometheus.yml", free_port()
    path.write_text(_configuration(busy.port))
    prometheus.check("config", path)
    process = subprocess.Popen(
        [
            prometheus.server(), f"--config.file={path}", f"--storage.tsdb.path={tmp_path}/data",
            f"--web.listen-address=127.0.0.1:{port}",
        ],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip

    def query(expression: str) -> Any:
        target = "/api/v1/query?" + urllib.parse.urlencode({"query": expression})
        try:
            answer = raw.call(port, "GET", target)
        except OSError:
            return None
        return answer.json() if answer.status in (200, 400, 422) else None

    def jobs() -> dict[str, str]:
        found = query("up")
        rows = found["data"]["result"] if found else []
        return {row["metric"]["job"]: row["value"][1] for row in rows}

    try:
        up = {"swapchart": "1", "swapchart-models": "1"}
        wait_until(lambda: jobs() == up, LONG_S, what="both jobs up")
        answers = {title: query(expression) for title, expression in _expressions()}
        of_models = query("swapchart_model_scrape_up")
    finally:
        process.terminate()
        process.wait(LONG_S)

    assert {title for title, each in answers.items() if each["status"] != "success"} == set()
    assert answers["State of each model"]["data"]["result"]
    assert {row["metric"]["model"] for row in of_models["data"]["result"]} == {"one"}
