"""Parser of chart documents: strict, and it reports all problems together.

Duplicate keys, unknown keys, wrong shapes, undeclared or unused names, missing targets and ids that
shadow the library's own are errors, with their path, line and column, and what was expected.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

from ..document import Document
from ..errors import ChartError
from .bounds import check_values
from .build import build
from .check_shape import ShapeChecker
from .expand import Expansion, expand
from .name_rules import AbsenceError, problems_of
from .source import Position, Source, load_yaml
from .structure_rules import UnreachableError

__all__ = ["Places", "from_mapping", "from_trusted", "load_yaml", "read", "read_placed"]


#: Path of something that can lead to a state.
_LEADING = re.compile(r"^chart\.states\..*\.(?:transitions|after|invoke|history)\b")


class Places:
    """Places of the parts of a document in its text.

    Attributes:
        file: Name of the file; empty if it has none.
    """

    def __init__(self, source: Source, expansion: Expansion) -> None:
        self.file = source.file
        self._source, self._expansion = source, expansion

    def position(self, path: str) -> Position:
        """Return line and column, both from 1, of the part at *path* as it was written."""
        return self._source.position(self._expansion.origin(path))


def read(text: str, file: str = "") -> Document:
    """Read and check a chart document in YAML or JSON.

    Args:
        text: The document.
        file: Its name, for errors; empty if it has none.

    Raises:
        ChartError: It is invalid; the error names the first problem and the number of the others,
            and ``problems`` holds all of them with line and column.
    """
    return read_placed(text, file)[0]


def read_placed(text: str, file: str = "") -> tuple[Document, Places]:
    """Read a document as `read` does; return it with the places of its parts.

    Raises:
        ChartError: As for `read`.
    """
    try:
        source = Source(text, file)
    except ChartError as error:
        raise (error.at(file, error.position) if file else error) from error
    document, expansion = _document(source.value, source.problems, source.placed)
    return document, Places(source, expansion)


def from_mapping(raw: Any) -> Document:
    """Check *raw*, a document as YAML or JSON gives it, and return it typed.

    Raises:
        ChartError: As for `read`, without line and column.
    """
    return _document(raw, (), lambda problem: problem)[0]


def from_trusted(raw: Any) -> Document:
    """Return *raw* typed, as `from_mapping` does, without checking it again.

    Args:
        raw: The ``source`` of a document that `from_mapping` returned before.
    """
    return build(raw)


def _document(
    raw: Any, earlier: Iterable[ChartError], placed: Callable[[ChartError], ChartError]
) -> tuple[Document, Expansion]:
    """Check *raw* in all passes.

    Args:
        raw: The document, as YAML or JSON gives it.
        earlier: Problems that its text has.
        placed: Adds line and column to a problem.
    """
    try:
        check_values(raw, "chart document")
        checker = ShapeChecker()
        cleaned = checker.document(raw)
    except ChartError as error:
        raise placed(error) from error
    problems = [*earlier, *checker.problems]
    checked: tuple[Document, Expansion] | None = None
    if cleaned["chart"]["states"]:
        expansion = expand(cleaned)
        document = build(expansion.raw)
        checked = document, expansion
        found = [*expansion.problems, *problems_of(document)]
        if checker.problems:  # what was left out for them is missing
            found = [problem for problem in found if not isinstance(problem, AbsenceError)]
        if any(_LEADING.search(problem.where) for problem in checker.problems):
            found = [problem for problem in found if not isinstance(problem, UnreachableError)]
        later = [ChartError(expansion.origin(p.where), p.why) for p in found]
        known = [problem.where for problem in problems]
        problems += [problem for problem in later if not _is_known(problem.where, known)]
    if checked is None or problems:
        unique = dict.fromkeys((p.where, p.why, p.position) for p in problems)
        raise _joined([placed(ChartError(w, why, position=at)) for w, why, at in unique])
    return checked


def _is_known(where: str, known: Iterable[str]) -> bool:
    """Return True if the part at *where* is in one that is known to be wrong."""
    return any(
        where == path or (where.startswith(path) and where[len(path)] in ".[") for path in known
    )


def _joined(problems: list[ChartError]) -> ChartError:
    """Return one error for *problems*, in the order of the text if that is known."""
    if all(problem.position for problem in problems):
        problems.sort(key=lambda problem: problem.position or (0, 0))
    first = problems[0]
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    error = ChartError(
        first.where, first.why + more,
        position=first.position, file=first.file, problems=tuple(problems),
    )  # fmt: skip
    error.add_note("\n".join(map(str, problems)))
    return error
