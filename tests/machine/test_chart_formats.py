"""Commands and the example of docs/chart-formats.md."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from tools.documents import PAGES, blocks, commands

from swapchart.machine import native_yaml, to_scxml

from .charts import chart

pytestmark = pytest.mark.slow

PAGE = PAGES["chart-formats.md"]
CLASS = """
from statemachine import State, StateChart

class OrderControl(StateChart):
    waiting = State(initial=True)
    shipped = State(final=True)
    pay = waiting.to.itself(unless="is_paid") | waiting.to(shipped, cond="is_paid")

    def is_paid(self):
        return True

    def on_pay(self):
        print("paid")
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the files that the commands of the page name."""
    machine = {
        "id": "toggle",
        "initial": "off",
        "states": {"off": {"on": {"press": "on"}}, "on": {"after": {"1000": "off"}}},
    }
    (tmp_path / "machine.json").write_text(json.dumps(machine))
    (tmp_path / "order.scxml").write_text(to_scxml(chart("order")))
    (tmp_path / "orders.py").write_text(CLASS)
    (tmp_path / "native.yaml").write_text(native_yaml(chart("order")))
    catalog = {key: value for key, value in chart("order").source.items() if key != "chart"}
    (tmp_path / "catalog.yaml").write_text(yaml.safe_dump(catalog))
    return tmp_path


@pytest.mark.parametrize("command", commands(PAGE))
def test_docs_chart_formats_command_runs(command: str, folder: Path) -> None:
    """A command reads its chart and says what it found, without losses and tracebacks."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", command], cwd=folder, env={**os.environ, "PATH": path},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip

    if "chart check" in command:
        assert "configurations" in done.stdout
    else:
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout or (folder / "lifecycle.xstate.json").stat().st_size > 1000


def test_docs_chart_formats_example_prints_what_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    """The document, the loss that stands in the comment, and findings of the checker."""
    (program,) = blocks(PAGE, "python")
    exec(program, {})
    out = capsys.readouterr().out

    said = program.partition('\\n")  # ')[2].splitlines()[0]
    assert f"\n{said}\n" in out
    assert "done.invoke.getUser" in out
