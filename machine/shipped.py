"""The shipped chart, parsed and compiled in advance, which saves 0.2 s of every start.

``lifecycle.compiled.json`` holds ``lifecycle.yaml`` as parsed and checked, with its decision table
and the digest of that file. It is ignored if the digest differs. A test compiles the chart anew and
compares. After a change run::

    python -m swapchart.machine > machine/lifecycle.compiled.json
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from hashlib import sha256
from pkgutil import get_data
from typing import Any

from .decision_table import Table, compile_table
from .document import Document
from .errors import ChartError
from .format.build import build
from .table_json import packed, unpacked

_PACKAGE = __name__.rpartition(".")[0]


def _file(name: str) -> bytes:
    """Return a file beside this module; importlib.resources takes 0.7 MB for that.

    Raises:
        OSError: There is none.
    """
    found = get_data(_PACKAGE, name)
    if found is None:
        raise FileNotFoundError(name)
    return found


def source() -> bytes:
    """Return the text of the shipped chart."""
    return _file("lifecycle.yaml")


def compiled(text: bytes) -> dict[str, Any] | None:
    """Return the compiled form of *text*; None if another text was compiled."""
    try:
        stored = json.loads(_file("lifecycle.compiled.json"))
    except OSError:
        return None
    found: dict[str, Any] = stored
    return found if found["digest"] == sha256(text).hexdigest() else None


def fresh(text: bytes) -> dict[str, Any]:
    """Parse, check and compile *text*, and return the contents of the compiled file.

    Raises:
        ChartError: It is invalid, or has no finite table.
    """
    from .format.parse import read  # not needed to run the chart as it ships

    document = read(text.decode())
    table = compile_table(document)
    if table is None or table.has_memory or table.start is not None:
        raise ChartError("chart", "expected no history states, and no guards at the start")
    return {"digest": sha256(text).hexdigest(), "document": document.source, "table": packed(table)}


def lines(kept: dict[str, Any]) -> Iterator[str]:
    """Yield *kept* as JSON, one line for each node and row, so that diffs are readable."""
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
    if kept is None:  # lifecycle.yaml was edited since
        from .format.parse import read

        return read(text.decode()), None
    return build(kept["document"]), unpacked(kept["table"])


def lifecycle() -> Document:
    """Return the chart of a served process that ships with the package."""
    return _shipped()[0]


def is_shipped(document: Document) -> bool:
    """Return True if *document* is the shipped chart: the object, or a copy of it."""
    known = _shipped()[0]
    return document is known or document == known


def shipped_table(document: Document) -> Table | None:
    """Return the table of *document* if that is the shipped chart, else None."""
    return _shipped()[1] if is_shipped(document) else None
