"""Collector of problems, so that all of them are reported in one run."""

from __future__ import annotations

from typing import Protocol

from .problems import Problem, Severity


class _Named(Protocol):
    @property
    def name(self) -> str: ...


class _Place(Protocol):
    @property
    def source(self) -> _Named: ...
    @property
    def line(self) -> int: ...
    @property
    def column(self) -> int: ...


_MOST = 1000  # maximum number of errors, and of warnings
_LONGEST_MESSAGE, _LONGEST_PATH = 1000, 500


class ProblemCollector:
    """Problems found so far; the same problem at the same location is kept once.

    An invalid default would otherwise be reported for each model that uses it. A file of 4 MiB can
    hold 100,000 errors, each with a path of some thousand characters, so only the first 1000 errors
    and warnings are kept, and long texts are shortened.
    """

    def __init__(self) -> None:
        self._problems: dict[tuple[object, ...], Problem] = {}
        self._files: dict[str, int] = {}
        self._blamed: set[tuple[str, int, int]] = set()
        self._kept = {"error": 0, "warning": 0}

    def blame(self, place: _Place) -> None:
        """Mark the value at *place* as reported, so that consequences are not reported too."""
        self._blamed.add((place.source.name, place.line, place.column))

    def error(self, place: _Place, path: str, message: str) -> None:
        """Report an error at a node, unless the node was blamed before."""
        if (place.source.name, place.line, place.column) in self._blamed:
            return
        self.error_at(place.source.name, path, place.line, place.column, message)

    def warning(self, place: _Place, path: str, message: str) -> None:
        """Report a warning at a node."""
        self._add(place.source.name, path, place.line, place.column, message, "warning")

    def error_at(self, file: str, path: str, line: int, column: int, message: str) -> None:
        """Report an error at a line and column, from 1; 0 means unknown."""
        self._add(file, path, line, column, message, "error")

    def warning_at(self, file: str, path: str, line: int, column: int, message: str) -> None:
        """Report a warning at a line and column, from 1; 0 means unknown."""
        self._add(file, path, line, column, message, "warning")

    @property
    def has_errors(self) -> bool:
        """True if the configuration cannot be used."""
        return any(problem.severity == "error" for problem in self._problems.values())

    def all(self) -> list[Problem]:
        """Return all problems by file (in order of first mention), line and column."""
        return sorted(
            self._problems.values(), key=lambda p: (self._files[p.file], p.line, p.column)
        )

    def _add(
        self, file: str, path: str, line: int, column: int, message: str, severity: Severity
    ) -> None:
        self._files.setdefault(file, len(self._files))
        message, path = _shortened(message, _LONGEST_MESSAGE), _shortened(path, _LONGEST_PATH)
        key = (file, line, column, message) if line else (file, path, message)
        if key in self._problems or self._kept[severity] > _MOST:
            return
        self._kept[severity] += 1
        if self._kept[severity] > _MOST:
            path, message = "", f"there are more {severity}s, which are not shown"
        problem = Problem(
            file=file, path=path, line=line, column=column, message=message, severity=severity
        )
        self._problems[key] = problem


def _shortened(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most // 2]}...{text[-most // 4 :]}"
