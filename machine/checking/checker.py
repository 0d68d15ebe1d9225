"""Checker: proves or refutes the promises of a chart by exhaustive search.

Safety is checked for every step, liveness for the whole graph: from every situation the world
alone, without further user actions, must bring the chart to rest, serve or reject every waiting
request, and answer every stop caller. The world is fair: an activity that can answer does so
eventually, and events under ``patience`` do not repeat forever. Each finding has a shortest trace.
A step that breaks a promise makes the graph beyond it meaningless, so liveness is checked only if
no step does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from ..compiled import Machine, digest_of
from ..document import Configuration, Document, Value
from ..drawing.diagram_model import picture
from ..errors import EventlessLoopError
from .checked_step import ENDLESS, CheckedStep
from .explore import Bounds, Environment, Input, Reactor, Situation, parameter_sets
from .graph import Graph, backward, components


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
    """

    kind: str
    sentence: str
    trace: tuple[Move, ...] = ()
    parameters: Mapping[str, Value] = field(default_factory=dict)

    def __str__(self) -> str:
        """Return the finding as text, one move per line."""
        lines = [f"{self.kind}: {self.sentence}"]
        if self.trace:
            values = ", ".join(f"{name}={value}" for name, value in self.parameters.items())
            lines.append(f"  with {values}" if values else "  for example")
        lines += [f"  {index}. {move}" for index, move in enumerate(self.trace)]
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
        digest: Digest of the chart; see `Machine.digest`.
    """

    findings: tuple[Finding, ...]
    runs: tuple[Run, ...]
    digest: str = ""

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


def check(
    document: Document,
    *,
    bounds: Bounds | None = None,
    parameters: Iterable[Mapping[str, Value]] | None = None,
    stop_at_first: bool = False,
    most: int = 200_000,
) -> Report:
    """Explore *document* under every set of parameters and report every broken promise.

    Args:
        document: The chart, with its ``promises``.
        bounds: Number of requests and counts to explore.
        parameters: Sets to explore; None means all of them, and only then an unreachable state is a
            finding.
        stop_at_first: Return with the first findings, for callers that need a yes or no.
        most: Maximum number of situations under one set of parameters; more are a finding.

    Raises:
        ChartError: The chart cannot be compiled.
    """
    bounds = bounds or Bounds()
    try:
        compiled = Machine(document, allow_loops=True)
    except EventlessLoopError as error:  # at the very start
        endless = Finding(kind=ENDLESS, sentence=", ".join(error.states))
        return Report(findings=(endless,), runs=(), digest=digest_of(document))
    found = {(finding.kind, finding.sentence): finding for finding in _unanswered(compiled)}
    runs: list[Run] = []
    seen: set[str] = set()
    for values in parameters or parameter_sets(document, bounds):
        checker = _Checker(compiled, bounds, values, most, stop_at_first=stop_at_first)
        runs.append(checker.run())
        seen |= checker.active
        for finding in checker.found.values():
            key = (finding.kind, finding.sentence)
            if key not in found or len(finding.trace) < len(found[key].trace):
                found[key] = finding
        if found and stop_at_first:
            break
    if not found and parameters is None:
        for finding in _never_reached(document, seen):
            found[finding.kind, finding.sentence] = finding
    ordered = sorted(found.values(), key=lambda finding: len(finding.trace))
    return Report(findings=tuple(ordered), runs=tuple(runs), digest=compiled.digest)


def _unanswered(machine: Machine) -> Iterator[Finding]:
    """Yield a finding for each activity whose failure the chart does not know."""
    promises = machine.document.promises
    known = machine.failures.keys() | promises.unsure | promises.reliable
    for activity in sorted(machine.answers.keys() - known):
        yield Finding(
            kind="an activity whose failure has no event",
            sentence=f"{activity}: declare {{origin: activity, of: {activity}, on: error}}, "
            "or name it under `promises.reliable` if it never fails",
        )


def _never_reached(document: Document, seen: set[str]) -> Iterator[Finding]:
    for node in picture(document).nodes.values():
        if node.kind in ("atomic", "final") and node.id not in seen:
            yield Finding(
                kind="a state that is never reached",
                sentence=f"{node.id} is never active, whatever happens",
            )


class _Checker:
    """Explores one set of parameters and collects findings."""

    def __init__(
        self,
        compiled: Machine,
        bounds: Bounds,
        parameters: Mapping[str, Value],
        most: int,
        *,
        stop_at_first: bool,
    ) -> None:
        self._document = compiled.document
        self._parameters = parameters
        self._most, self._stop_at_first = most, stop_at_first
        self._environment = Environment(compiled.document, bounds)
        reactor = Reactor(compiled.stepper(**parameters))
        self._world = CheckedStep(compiled.document, reactor, self._environment, bounds, parameters)
        self._graph: Graph[Situation, Input] = Graph()
        self.found: dict[tuple[str, str], Finding] = {}

    @property
    def active(self) -> set[str]:
        """All states that were active in some situation."""
        return {name for now in self._graph.nodes for name in now.configuration}

    def run(self) -> Run:
        """Explore, then check what only the whole graph shows."""
        self._walk()
        if not self.found:
            self._for_ever()
            self._endless()
        configurations = {now.configuration for now in self._graph.nodes}
        return Run(
            parameters=dict(self._parameters),
            states=len(self._graph.nodes),
            edges=self._graph.edge_count,
            configurations=len(configurations),
        )

    def _walk(self) -> None:
        graph, world = self._graph, self._world
        start, problems = world.start()
        graph.add(start, None, None)
        for kind, sentence in problems:
            self._note(kind, sentence, 0, None)
        index = 0
        while index < len(graph.nodes):
            now = graph.nodes[index]
            for what in self._environment.inputs(now) if not world.is_final(now) else ():
                after, problems = world.step(now, what)
                for kind, sentence in problems:
                    self._note(kind, sentence, index, (what, after))
                if self.found and self._stop_at_first:
                    return
                if after is not None:
                    graph.link(index, what, after)
                elif not problems:
                    graph.cut.add(index)
            index += 1
            if len(graph.nodes) > self._most:
                sentence = f"more than {self._most} situations"
                self._note("too much to explore", sentence, index - 1, None)
                return

    # ---- checks of the whole graph -----------------------------------------------------------
    def _for_ever(self) -> None:
        """Check that nothing lasts forever that must not: unrest, waiting, a stop under way."""
        promises = self._document.promises
        if promises.rest:
            self._leaves(
                "a reachable state with no way to rest",
                lambda now: not self._world.is_at_rest(now),
            )
        if promises.requests is not None:
            self._leaves(
                "a waiter that can wait for ever",
                lambda now: self._environment.counts(now.values)[0] > 0,
            )
        if promises.stopping:
            self._leaves(
                "a stop caller never answered",
                lambda now: promises.stopping in now.configuration,
            )

    def _leaves(self, kind: str, is_inside: Callable[[Situation], bool]) -> None:
        """Report situations from which a fair world need not lead out of *inside*."""
        graph, world = self._graph, self._world
        inside = {i for i, now in enumerate(graph.nodes) if is_inside(now)}
        env: dict[int, list[tuple[Input, int]]] = {
            i: [(what, to) for what, to in graph.edges[i] if world.is_of_the_world(what)]
            for i in inside
        }
        for i in sorted(inside):
            if not any(world.must_come(what) for what, _ in env[i]) and i not in graph.cut:
                sentence = f"{_path(graph.nodes[i])} can last: nothing has to happen"
                self._note(kind, sentence, i, None)
                break
        out = {i for i in inside if any(to not in inside for _, to in env[i]) or i in graph.cut}
        ways = backward(((i, to) for i in inside for _, to in env[i] if to in inside), out)
        for i in sorted(inside - ways):
            self._note(kind, f"{_path(graph.nodes[i])} has no way out", i, None)
            break
        impatient = {
            i: [to for what, to in env[i] if to in inside and not world.needs_patience(what)]
            for i in inside
        }
        for loop in components(sorted(inside), impatient):
            if self._is_fair(set(loop), env):
                names = sorted({graph.nodes[i].configuration[-1] for i in loop})
                self._note(kind, f"it can go round for ever: {', '.join(names)}", min(loop), None)
                break

    def _is_fair(self, loop: set[int], env: Mapping[int, list[tuple[Input, int]]]) -> bool:
        """Return True if *loop* can continue forever although the world is fair.

        It cannot if an event that must come could come everywhere in it and is never taken.
        """
        due = [{what.event for what, _ in env[i] if self._world.must_come(what)} for i in loop]
        taken = {what.event for i in loop for what, to in env[i] if to in loop}
        return not set.intersection(*due) - taken

    def _endless(self) -> None:
        """Check that the chart can be ended from everywhere, whatever was requested before."""
        graph, world = self._graph, self._world
        final = {i for i, now in enumerate(graph.nodes) if world.is_final(now)}
        if not final and not world.has_final:
            return
        pairs = ((i, to) for i, edges in enumerate(graph.edges) for _, to in edges)
        ways = backward(pairs, final | graph.cut)
        for i in range(len(graph.nodes)):
            if i not in ways:
                sentence = f"{_path(graph.nodes[i])} cannot reach a final state"
                self._note("a state from which the chart cannot end", sentence, i, None)
                break

    def _note(
        self, kind: str, sentence: str, index: int, last: tuple[Input, Situation | None] | None
    ) -> None:
        if (kind, sentence) in self.found:
            return  # found before, with a trace at least as short
        moves = [
            Move(event="begin" if what is None else str(what), configuration=now.configuration)
            for what, now in self._graph.way_to(index)
        ]
        if last is not None:
            what, after = last
            at = self._graph.nodes[index] if after is None else after
            moves.append(Move(event=str(what), configuration=at.configuration))
        self.found[kind, sentence] = Finding(
            kind=kind, sentence=sentence, trace=tuple(moves), parameters=dict(self._parameters)
        )


def _path(now: Situation) -> str:
    return ".".join(now.configuration)
