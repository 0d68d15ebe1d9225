"""The fault catalogue and the tests say the same: each row has its test, or a reason.

A test covers a row by bearing its id in its name: ``test_A07_...``, ``test_C03_C04_...``.
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
    """Row -> files with a test of its name."""
    found: dict[str, set[str]] = {}
    for path in TESTS.rglob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                named = re.match(r"test_((?:[A-E]\d\d_)+)", node.name)
                for row in re.findall(r"[A-E]\d\d", named[1]) if named else ():
                    found.setdefault(row, set()).add(str(path.relative_to(TESTS)))
    return found


def test_every_row_that_must_hold_before_a_release_has_a_test() -> None:
    """No P0 row is without a test named after it."""
    missing = sorted(set(ROWS) - set(covered()))

    assert [row for row in missing if ROWS[row][0] == "P0"] == []


def test_what_is_not_covered_is_said_with_its_reason() -> None:
    """Each row without a test stands in docs/reliability.md, and none that has one."""
    text = (TESTS.parent / "docs" / "reliability.md").read_text("utf-8")
    said = set(re.findall(r"^\| ([A-E]\d\d) \|", text, re.MULTILINE))

    assert said == set(ROWS) - set(covered())


def test_no_test_bears_the_name_of_a_row_that_does_not_exist() -> None:
    """A typing error in a name would count for nothing."""
    assert sorted(set(covered()) - set(ROWS)) == []
