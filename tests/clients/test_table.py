"""The table of docs/clients.md: written by tools/client_table.py, with a row for each client."""

from __future__ import annotations

import json
import re

from tools.client_drivers import LIBRARIES
from tools.client_programs import PAGE, PROGRAMS
from tools.client_table import BEGIN, COLUMNS, END, table

CELL = re.compile(r"yes|-|< \d+ s|[\d.]+")


def rows(text: str) -> list[list[str]]:
    """Return the cells of the rows of a table, without its head."""
    return [line.strip("| \n").split(" | ") for line in text.splitlines()[2:]]


def test_docs_table_has_a_row_for_each_client() -> None:
    """Each cell is filled: a new client or column needs `./dev clients --table`."""
    found = rows(PAGE.partition(BEGIN)[2].partition(END)[0])
    names = [library.name for library in LIBRARIES] + [program.name for program in PROGRAMS]

    assert [row[0] for row in found] == names
    for row in found:
        assert len(row) == 1 + len(COLUMNS)
        assert [cell for cell in row[1:] if not CELL.fullmatch(cell)] == []


def test_table_takes_the_longest_time_and_rounds_it_up() -> None:
    column = "error of a broken model"
    noted = [["x", "chat", "yes"], ["x", column, 0.2], ["x", column, 2.1], ["x", column, 0.4],
             ["y", column, 500.0]]  # fmt: skip
    found = rows(table("".join(json.dumps(line) + "\n" for line in noted)))

    assert [(row[0], row[-1]) for row in found] == [("x", "< 3 s"), ("y", "> 90 s")]
    assert found[0][1 + COLUMNS.index("chat")] == "yes"
    assert found[0][1 + COLUMNS.index("tools")] == ""
