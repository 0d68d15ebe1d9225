"""Charts named on the command line: a file in one of several forms, or a class."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from statemachine import StateChart
from statemachine.exceptions import InvalidDefinition

from ...machine import ChartError, Document, from_class, read_any
from ...machine.format.bounds import MAX_TEXT
from ...machine.interchange.class_reader import Mode
from ...machine.interchange.draft import Loss


def load_chart(name: str, mode: Mode, catalog: Mapping[str, Any] | None = None) -> Document:
    """Load a chart from a file of any form, or from a class named ``package.module:Class``.

    What the chart has and a document cannot express is printed to standard error.

    Args:
        name: Path of the file, or name of the class.
        mode: What the document is for, if it is made of a class without a catalog.
        catalog: Sections that a class or a file of python-statemachine does not have.

    Raises:
        ChartError: It is not a chart.
        OSError: The file cannot be read.
    """
    module, mark, attribute = name.partition(":")
    lost: list[Loss] = []
    if not mark or Path(name).exists():
        try:
            document = read_any(read_file(Path(name)), catalog, file=name, lost=lost)
        except ChartError as error:
            error.file = error.file or name
            raise
    else:
        cls = _class(name, module, attribute)
        found_mode: Mode = mode if catalog is None else "run"
        document = from_class(cls, catalog, mode=found_mode, lost=None if catalog else lost)
    for loss in lost:
        if not loss.is_harmless:
            print(f"swapchart: not translated: {loss}", file=sys.stderr)
    return document


def _class(name: str, module: str, attribute: str) -> type[StateChart[object]]:
    sys.path.insert(0, "")  # as `python -m` does: modules of the working directory come first
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, SyntaxError, InvalidDefinition) as error:
        raise ChartError(name, f"expected package.module:Class, {error}") from error
    finally:
        sys.path.remove("")
    if not isinstance(found, type) or not issubclass(found, StateChart):
        raise ChartError(name, f"expected a StateChart class, found {found!r}")
    return found


def read_file(path: Path) -> str:
    """Return the text of a chart file.

    Raises:
        ChartError: It is too large, or not UTF-8.
        OSError: It cannot be read.
    """
    with path.open("rb") as file:
        data = file.read(MAX_TEXT + 1)
    if len(data) > MAX_TEXT:
        raise ChartError(str(path), f"expected at most {MAX_TEXT >> 20} MiB, found more")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ChartError(str(path), f"expected UTF-8, found {error}") from error
