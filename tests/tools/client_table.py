"""Table of docs/clients.md: what each client can do, written by the tests that hold it.

``./dev clients --table`` runs all tests of clients and puts their results into the page. Times are
rounded up to a step of `STEPS_S`, since a busy machine measures others.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "clients.md"
BEGIN, END = "<!-- results: begin -->\n", "<!-- results: end -->\n"
COLUMNS = (
    "version", "listed", "chat", "stream", "swap", "tools", "embeddings", "errors",
    "error of a broken model",
)  # fmt: skip
STEPS_S = (1, 3, 10, 30, 90)
#: File that the tests append to, one JSON list a line.
VARIABLE = "SWAPCHART_CLIENTS_RESULTS"


def note(client: str, column: str, result: str | float) -> None:
    """Note one result, where a table is to be written: a word, or seconds."""
    assert column in COLUMNS
    if path := os.environ.get(VARIABLE):
        with Path(path).open("a") as file:
            file.write(json.dumps([client, column, result]) + "\n")


def table(text: str) -> str:
    """Return the table of noted results; the longest of several times counts.

    Args:
        text: Contents of the file.
    """
    rows: dict[str, dict[str, str]] = {}
    longest: dict[str, float] = {}
    for line in text.splitlines():
        client, column, result = json.loads(line)
        row = rows.setdefault(client, {})
        if isinstance(result, str):
            row[column] = result
        else:
            longest[client] = max(result, longest.get(client, 0))
            step = next((step for step in STEPS_S if longest[client] < step), None)
            row[column] = f"< {step} s" if step else f"> {STEPS_S[-1]} s"
    lines = [["client", *COLUMNS], ["---"] * (1 + len(COLUMNS))]
    lines += [[client, *(row.get(name, "") for name in COLUMNS)] for client, row in rows.items()]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def main() -> int:
    """Put the table of the results into the page, and print it."""
    text = PAGE.read_text("utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    new = table(Path(os.environ[VARIABLE]).read_text())
    PAGE.write_text(f"{before}{BEGIN}{new}{END}{after}", "utf-8")
    print(new)
    return 0


if __name__ == "__main__":
    sys.exit(main())
