"""The examples of docs/embedding.md, run as they stand there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from tools.net import free_port

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "embedding.md").read_text("utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
COMMAND, OWN_STATES, FLEET, OWN_CHART, ORDER, SURVIVING, MIGRATING, FASTAPI, TRIO_CLOCK = EXAMPLES
#: Name -> text of the files that the examples read.
FILES = dict(re.findall(r"```yaml\n# ([\w.]+)\n(.*?)```", TEXT, re.DOTALL))

DRIVE_FASTAPI = """
from fastapi.testclient import TestClient
with TestClient(app) as client:
    for name in ("left", "right", "nobody"):
        answer = client.get(f"/use/{name}")
        print(answer.status_code, answer.json().get("worker") or answer.json()["error"])
"""


def run(code: str, folder: Path, *argv: str) -> str:
    """Run *code* with the arguments *argv* in a process of its own, on ports that are free."""
    for port in sorted(set(re.findall(r"\b59\d\d\b", code))):
        code = code.replace(port, str(free_port()))
    done = subprocess.run(
        [sys.executable, "-c", code, *argv], cwd=folder, capture_output=True, text=True,
        timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_embedding_one_command_takes_under_15_lines(tmp_path: Path) -> None:
    """The first example is as short as promised, and works."""
    body = [line for line in COMMAND.splitlines() if line.strip()]
    statements = [line for line in body if not line.startswith(("import", "from"))]

    assert len(statements) < 15
    assert "web is ready as pid" in run(COMMAND, tmp_path)


def test_embedding_custom_state_is_part_of_the_lifecycle(tmp_path: Path) -> None:
    """The overlay is proven, its hook runs, and its state shows up among the transitions."""
    out = run(OWN_STATES, tmp_path).splitlines()

    assert out.index("before_start -> preparing") < out.index("preparing sleeper")
    assert out.index("preparing sleeper") < out.index("preparing -> launching")
    assert "serving" in out


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_embedding_fleet_runs_on_both_back_ends(tmp_path: Path, backend: str) -> None:
    """Six processes start side by side, one comes back after a crash, one drains its players."""
    out = run(FLEET, tmp_path, backend).splitlines()

    games = [f"game{number}" for number in range(1, 6)]
    assert "worlds: warm warm warm warm warm cold" in out
    started = out[: out.index("worlds: warm warm warm warm warm cold")]
    for name in games:
        assert started.index(f"{name} after_healthy -> warming") < started.index(
            f"{name} warming -> ready"
        )
    assert "lobby after_healthy -> ready" in started
    assert not any("before_stop" in line for line in started)  # none was evicted
    after = out[len(started) :]
    back = after.index("game1 is back as run 2")
    assert "game1 backoff -> before_start" in after[:back]
    assert "game1 warming -> ready" in after[:back]
    drain = [line for line in after[back:] if line.startswith("game2")]
    assert drain[:4] == [
        "game2 ready -> draining", "game2 is draining with 2 players",
        "game2 is draining with 1 player", "game2 draining -> before_stop",
    ]  # fmt: skip
    assert "game2 is stopped and game3 is ready" in drain
    for name in (*games, "lobby"):
        assert any(line.startswith(f"{name} ") and "-> shut_down" in line for line in after)


def test_embedding_trio_clock_takes_no_time(tmp_path: Path) -> None:
    """Two days pass at once."""
    assert run(TRIO_CLOCK, tmp_path) == "overdue after 172800 seconds\n"


def test_embedding_chart_without_processes_runs(tmp_path: Path) -> None:
    """The kettle boils."""
    assert run(OWN_CHART, tmp_path) == "tea\n"


def test_embedding_order_process_runs_as_printed(tmp_path: Path) -> None:
    """The chart is proven, wrong events are refused, and the order is delivered."""
    (tmp_path / "order.yaml").write_text(FILES["order.yaml"])
    out = run(ORDER, tmp_path).splitlines()

    assert "event 'submit': expected field 'value' to be one of 50, 5000; got 7" in out
    assert out.index("A-17 hold -> held") + 1 == out.index("A-17 resume -> open.waiting")
    assert "charging 5000 for A-17" in out
    assert out[-1] == "A-17 ship_done -> delivered"


def test_embedding_order_goes_on_in_another_process(tmp_path: Path) -> None:
    """The second run of the program resumes the order that the first one left."""
    (tmp_path / "order.yaml").write_text(FILES["order.yaml"])

    assert run(SURVIVING, tmp_path) == "A-17 is in waiting\n"
    again = run(SURVIVING, tmp_path).splitlines()
    assert again[0] == "A-17 goes on in waiting"
    assert sorted(again[1:3]) == ["charge lamp", "reserve lamp"]
    assert again[3:] == ["ship lamp", "delivered after 5 steps"]


def test_embedding_migration_of_a_chart_is_added(tmp_path: Path) -> None:
    """The changed chart has the version and the way that the page shows."""
    (tmp_path / "order.yaml").write_text(FILES["order.yaml"])

    assert run(MIGRATING, tmp_path) == "version 2\n"


def test_embedding_in_fastapi_works(tmp_path: Path) -> None:
    """Workers swap below an application's own routes; its end leaves nothing behind."""
    pytest.importorskip("fastapi")

    out = run(FASTAPI + DRIVE_FASTAPI, tmp_path)
    assert out == "200 left\n200 right\n404 there is no service 'nobody'\n"
