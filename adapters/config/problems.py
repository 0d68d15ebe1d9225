"""What is wrong with a configuration: every problem at once, each with the place it came from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from ...machine.errors import SwapchartError

Severity: TypeAlias = Literal["error", "warning"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One finding about the configuration.

    Attributes:
        file: The file it is in, as it was given; empty when no file is to blame.
        path: Dotted path into the document, such as ``models.qwen.ttl``; may be empty.
        line: Line in *file*, from 1; 0 when there is none.
        column: Column in that line, from 1; 0 when there is none.
        message: What was expected and what was found; never the value of a secret.
        severity: An ``error`` keeps the configuration from being used, a ``warning`` does not.
    """

    file: str
    path: str
    line: int
    column: int
    message: str
    severity: Severity = "error"

    def __str__(self) -> str:
        """Say it in one line, places first, as compilers do."""
        place = f"{self.file}:{self.line}:{self.column}: " if self.line else ""
        if self.file and not self.line:
            place = f"{self.file}: "
        where = f"{self.path}: " if self.path else ""
        return f"{place}{self.severity}: {where}{self.message}"


class ConfigProblems(SwapchartError):  # noqa: N818 - it carries many, of two severities
    """The configuration cannot be used, and nothing was started: its author must act.

    Attributes:
        problems: All that was found, warnings included; at least one is an error.
    """

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__(format_problems(problems))
        self.problems = tuple(problems)


def format_problems(problems: Iterable[Problem]) -> str:
    """Return the *problems* as text: one a line, in the order given."""
    return "\n".join(map(str, problems))
