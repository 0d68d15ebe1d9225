"""The shipped chart compiled beforehand is the shipped chart."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from swapchart.machine import (
    Compiled,
    compile_table,
    lifecycle,
    read,
    shipped,
    table_json,
)
from swapchart.machine.decision_table import Tree

STALE = "python -m swapchart.machine > machine/lifecycle.compiled.json"
NEEDS_NOTHING = """
import sys
from swapchart import runtime
from swapchart.machine import Compiled, lifecycle

assert Compiled(lifecycle()).table is not None
late = {"statemachine", "swapchart.machine.checking", "swapchart.machine.drawing", "difflib"}
late |= {"swapchart.machine.format.parse", "swapchart.machine.format.keys"}
late &= set(sys.modules)
assert not late, late
"""


def test_shipped_table_equals_the_compiled_chart() -> None:
    """Read and compiled afresh, the chart gives the file that ships, byte for byte."""
    text = shipped.source()
    stored = Path(shipped.__file__).with_name("lifecycle.compiled.json").read_text("utf-8")

    assert "\n".join(shipped.lines(shipped.fresh(text))) + "\n" == stored, f"stale: {STALE}"


def test_table_round_trips_through_json() -> None:
    """Packed as JSON and unpacked again, a table is equal, and its configurations are one each."""
    table = compile_table(lifecycle())
    assert table is not None
    again = table_json.unpacked(json.loads(json.dumps(table_json.packed(table))))

    assert again == table
    for reached in _reached(list(again.rows.values())):
        assert any(reached is configuration for configuration in again.rows)


def _reached(rows: list[dict[str, Tree]]) -> list[tuple[str, ...]]:
    todo = [tree for row in rows for tree in row.values()]
    for tree in todo:  # grows while we walk
        todo += [branch for branch in tree[2:] if isinstance(branch, tuple)]
    return [tree[1] for tree in todo if tree[0] == "goto"]


def test_import_needs_neither_the_library_nor_the_checker() -> None:
    """Whoever runs the shipped chart does not wait for python-statemachine to be imported."""
    subprocess.run([sys.executable, "-c", NEEDS_NOTHING], check=True, timeout=60)


def test_chart_that_changed_is_compiled_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of another text nothing that was kept is used."""
    text = shipped.source() + b"# changed\n"
    monkeypatch.setattr(shipped, "source", lambda: text)
    shipped._shipped.cache_clear()
    try:
        document = lifecycle()

        assert shipped.compiled(text) is None
        assert shipped.shipped_table(document) is None
        assert document == read(text.decode())
        assert Compiled(document).table == compile_table(document)
    finally:
        monkeypatch.undo()
        shipped._shipped.cache_clear()


def test_shipped_table_that_is_missing_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """A package without the file is slower, and no different."""
    monkeypatch.setattr(shipped, "_PACKAGE", "swapchart.runtime")

    assert shipped.compiled(b"") is None


def test_module_of_the_machine_explains_itself() -> None:
    """`--help` says what the command is for, and prints no table."""
    done = subprocess.run(
        [sys.executable, "-m", "swapchart.machine", "--help"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip

    assert "swapchart chart --help" in done.stdout
    assert len(done.stdout.splitlines()) < 20


def test_module_of_the_machine_refuses_arguments() -> None:
    """A file given to it would be ignored otherwise."""
    done = subprocess.run(
        [sys.executable, "-m", "swapchart.machine", "order.yaml"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert (done.returncode, done.stdout) == (2, "")
