"""The shipped chart, read and compiled beforehand: 0.2 s of every start otherwise.

``lifecycle.compiled.json`` holds ``lifecycle.yaml`` as it was read and checked, and its decision
table, beside the digest of that file. With another digest nothing of it is used. A test compiles
the chart afresh and compares. After a change::

    python -m swapchart.machine > machine/lifecycle.compiled.json
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from hashlib import sha256
from importlib.resources import files
from typing import Any

from .decision_table import Table, compile_table
from .document import Document
from .errors import ChartError
from .parse import from_mapping, from_trusted, load_yaml, read
from .table_json import packed, unpacked

_PACKAGE = __name__.rpartition(".")[0]


def source() -> bytes:
    """Return the text of the shipped chart."""
    return files(_PACKAGE).joinpath("lifecycle.yaml").read_bytes()


def compiled(text: bytes) -> dict[str, Any] | None:
    """Return what was made of *text* beforehand; None when it was another text."""
    try:
        stored = json.loads(files(_PACKAGE).joinpath("lifecycle.compiled.json").read_bytes())
    except OSError:
        return None
    found: dict[str, Any] = stored
    return found if found["digest"] == sha256(text).hexdigest() else None


def fresh(text: bytes) -> dict[str, Any]:
    """Read, check and compile *text*, and return what is to be kept of it.

    Raises:
        ChartError: It is wrong, or has history states.
    """
    raw = load_yaml(text.decode())
    table = compile_table(from_mapping(raw))
    if table is None:
        raise ChartError("chart", "expected one without history states")
    return {"digest": sha256(text).hexdigest(), "document": raw, "table": packed(table)}


def lines(kept: dict[str, Any]) -> Iterator[str]:
    """Yield *kept* as JSON, a line for each node and each row, so that changes can be read."""
    table = kept["table"]
    yield f'{{"digest": {json.dumps(kept["digest"])},'
    yield f'"document": {json.dumps(kept["document"])},'
    yield '"table": {'
    for key in ("configurations", "initial", "entry_actions", "final"):
        yield f"{json.dumps(key)}: {json.dumps(table[key])},"
    yield '"nodes": ['
    yield ",\n".join(json.dumps(node) for node in table["nodes"])
    yield '],\n"rows": ['
    yield ",\n".join(json.dumps(row) for row in table["rows"])
    yield "]}}"


@cache
def _shipped() -> tuple[Document, Table | None]:
    text = source()
    kept = compiled(text)
    if kept is None:  # the file is being worked on
        return read(text.decode()), None
    return from_trusted(kept["document"]), unpacked(kept["table"])


def lifecycle() -> Document:
    """Return the chart of a served process, which ships with the package."""
    return _shipped()[0]


def shipped_table(document: Document) -> Table | None:
    """Return the table that ships with *document*, if that is the very object of `lifecycle`."""
    known, table = _shipped()
    return table if document is known else None
