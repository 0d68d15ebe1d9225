"""Findings of a check, with their traces, and the report that holds them."""

from __future__ import annotations

from collections.abc import Mapping

from ...dataclass import dataclass, field
from ..document import Configuration, Value


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """One step of a trace.

    Attributes:
        event: Event with its fields; ``begin`` for the creation.
        configuration: All active states after it.
    """

    event: str
    configuration: Configuration

    def __str__(self) -> str:
        """Return the move as an arrow."""
        return f"{self.event} -> {'.'.join(self.configuration)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One broken promise.

    Attributes:
        kind: The promise; one of a few fixed phrases.
        sentence: What is wrong, with names.
        trace: Shortest trace from the creation; empty if the finding is about the whole chart.
        parameters: Parameters of the instance in which it was found.
        cure: What to write instead; empty if that is not known.
        event: The event that it is about; empty if it is about none.
        path: Path of the part of the document that it is about; empty if it is about no single one.
        states: States that the cure is for.
    """

    kind: str
    sentence: str
    trace: tuple[Move, ...] = ()
    parameters: Mapping[str, Value] = field(default_factory=dict)
    cure: str = ""
    event: str = ""
    path: str = ""
    states: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Return the finding as text, one move per line, and its cure."""
        lines = [f"{self.kind}: {self.sentence}"]
        if self.trace:
            values = ", ".join(f"{name}={value}" for name, value in self.parameters.items())
            lines.append(f"  with {values}" if values else "  for example")
        lines += [f"  {index}. {move}" for index, move in enumerate(self.trace)]
        lines += [f"  to cure it: {self.cure}"] if self.cure else []
        return "\n".join(lines)


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """Size of the exploration under one set of parameters.

    Attributes:
        parameters: The set.
        states: Number of situations reached.
        edges: Number of steps taken.
        configurations: Number of different configurations.
    """

    parameters: Mapping[str, Value]
    states: int
    edges: int
    configurations: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Result of a check.

    Attributes:
        findings: Shortest trace first; empty if every promise is kept.
        runs: One for each set of parameters.
        digest: Digest of the chart and its promises; see `proof_digest_of`.
        warnings: What is no broken promise and yet seldom meant: transitions that are never taken,
            and conflicts between regions. Only a full check looks for them.
        cut: What was explored up to a bound only, such as ``n <= 2``: beyond it, nothing is proven.
    """

    findings: tuple[Finding, ...]
    runs: tuple[Run, ...]
    digest: str = ""
    warnings: tuple[Finding, ...] = ()
    cut: tuple[str, ...] = ()

    @property
    def is_ok(self) -> bool:
        """True if every promise is kept."""
        return not self.findings

    @property
    def states(self) -> int:
        """Number of situations in all runs."""
        return sum(run.states for run in self.runs)

    @property
    def edges(self) -> int:
        """Number of steps in all runs."""
        return sum(run.edges for run in self.runs)

    @property
    def configurations(self) -> int:
        """Largest number of configurations in one run."""
        return max((run.configurations for run in self.runs), default=0)
