"""Problems of a configuration, each with its location."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal, TypeAlias

from ...dataclass import dataclass
from ...machine.errors import SwapchartError

Severity: TypeAlias = Literal["error", "warning"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One error or warning.

    Attributes:
        file: File name as it was given; empty if the problem belongs to no file.
        path: Dotted path into the document, such as ``models.qwen.ttl``; may be empty.
        line: Line in *file*, from 1; 0 means unknown.
        column: Column in that line, from 1; 0 means unknown.
        message: What was expected and what was found; never the value of a secret.
        severity: An ``error`` makes the configuration unusable, a ``warning`` does not.
    """

    file: str
    path: str
    line: int
    column: int
    message: str
    severity: Severity = "error"

    def __str__(self) -> str:
        """Return the problem as one line that begins with its location, as compilers do."""
        place = f"{self.file}:{self.line}:{self.column}: " if self.line else ""
        if self.file and not self.line:
            place = f"{self.file}: "
        where = f"{self.path}: " if self.path else ""
        return f"{place}{self.severity}: {where}{self.message}"


class ConfigProblems(SwapchartError):  # noqa: N818 - it carries many, of two severities
    """The configuration cannot be used, and nothing was started.

    Attributes:
        problems: All problems, warnings included; at least one is an error.
    """

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__(format_problems(problems))
        self.problems = tuple(problems)


def format_problems(problems: Iterable[Problem]) -> str:
    """Return the *problems* as text, one per line, in the given order."""
    return "\n".join(map(str, problems))
