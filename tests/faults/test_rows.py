"""The fault catalog and the tests agree: each row has a test, or a documented reason for none.

A test covers a row by its mark: ``@row("A07")``, ``@row("C03", "C04")``.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

TESTS = Path(__file__).parents[1]
ROWS = {
    row: (priority, fault)
    for row, priority, fault in (
        line.split("\t")
        for line in Path(__file__).with_name("rows.tsv").read_text("utf-8").splitlines()[1:]
    )
}


def covered() -> dict[str, set[str]]:
    """Return the files with a test for each row that has one."""
    found: dict[str, set[str]] = {}
    for path in TESTS.rglob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                for row in marked(node):
                    found.setdefault(row, set()).add(str(path.relative_to(TESTS)))
    return found


def marked(test: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    """Return the rows in the marks of *test*."""
    calls = [call for call in test.decorator_list if isinstance(call, ast.Call)]
    ours = [call for call in calls if ast.unparse(call.func) == "row"]
    return [ast.literal_eval(row) for call in ours for row in call.args]


def test_rows_of_highest_priority_have_tests() -> None:
    """Each row that must hold before a release (P0) has a test with its mark."""
    missing = sorted(set(ROWS) - set(covered()))

    assert [row for row in missing if ROWS[row][0] == "P0"] == []


def test_rows_without_a_test_are_documented() -> None:
    """docs/reliability.md lists exactly the rows without a test."""
    text = (TESTS.parent / "docs" / "reliability.md").read_text("utf-8")
    said = set(re.findall(r"^\| ([A-E]\d\d) \|", text, re.MULTILINE))

    assert said == set(ROWS) - set(covered())


def test_row_marks_name_existing_rows() -> None:
    """A typing error in a mark fails here instead of covering nothing."""
    assert sorted(set(covered()) - set(ROWS)) == []
