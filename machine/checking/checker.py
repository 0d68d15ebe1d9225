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
from typing import TypeAlias

from ...dataclass import dataclass
from ..compiled import Machine
from ..digest import proof_digest_of
from ..document import Document, Value, state_path
from ..drawing.diagram_model import picture
from ..errors import EventlessLoopError
from .checked_step import ENDLESS, CheckedStep
from .conflicts import ConflictFinder
from .cures import UNHANDLED, grouped
from .explore import Bounds, Environment, Input, Reactor, Situation, parameter_sets
from .findings import Finding, Move, Report, Run
from .graph import Graph, backward, components
from .marks import Marked, entered, marked, never_taken


@dataclass(frozen=True, slots=True, kw_only=True)
class Explored:
    """Result of one set of parameters, of plain values.

    Attributes:
        run: Size of the exploration.
        active: All states that were active in some situation.
        taken: Marks of the transitions that were taken.
        cut: Bounds of the exploration that were reached.
        found: Findings.
        warnings: Findings that break no promise.
    """

    run: Run
    active: frozenset[str]
    taken: frozenset[int]
    cut: tuple[str, ...]
    found: tuple[Finding, ...]
    warnings: tuple[Finding, ...]


Parameters: TypeAlias = Mapping[str, Value]
ExploreAll: TypeAlias = Callable[
    [Callable[[Parameters], Explored], Iterable[Parameters]], Iterable[Explored]
]


def check(
    document: Document,
    *,
    bounds: Bounds | None = None,
    parameters: Iterable[Mapping[str, Value]] | None = None,
    stop_at_first: bool = False,
    most: int = 200_000,
    explore_all: ExploreAll = map,
) -> Report:
    """Explore *document* under every set of parameters and report every broken promise.

    Args:
        document: The chart, with its ``promises``.
        bounds: Number of requests and counts to explore.
        parameters: Sets to explore; None means all of them, and only then an unreachable state is a
            finding.
        stop_at_first: Return with the first findings, for callers that need a yes or no.
        most: Maximum number of situations under one set of parameters; more are a finding.
        explore_all: Applies its first argument to each set, in order; the default is ``map``.

    Raises:
        ChartError: The chart cannot be compiled.
    """
    bounds = bounds or Bounds()
    marks = Marked(document, (), ()) if stop_at_first else marked(document)
    try:
        compiled = Machine(marks.document, allow_loops=True)
    except EventlessLoopError as error:  # at the very start
        endless = Finding(kind=ENDLESS, sentence=", ".join(error.states))
        return Report(findings=(endless,), runs=(), digest=proof_digest_of(document))
    found = {(finding.kind, finding.sentence): finding for finding in _unanswered(compiled)}
    warnings: dict[tuple[str, str], Finding] = {}
    runs: list[Run] = []
    seen: set[str] = set()
    taken: set[int] = set()
    cut: dict[str, None] = {}

    def explore(values: Mapping[str, Value]) -> Explored:
        return _Checker(compiled, bounds, values, most, stop_at_first=stop_at_first).explored()

    for one in explore_all(explore, parameters or parameter_sets(document, bounds)):
        runs.append(one.run)
        seen |= one.active
        taken |= one.taken
        cut |= dict.fromkeys(one.cut)
        _collect(found, one.found)
        _collect(warnings, one.warnings)
        if found and stop_at_first:
            break
    if not found and parameters is None:
        _collect(found, _never_reached(document, seen | entered(marks, taken)))
    if parameters is None and not found and not stop_at_first:
        _collect(warnings, _idle_transitions(marks, taken, seen, is_cut=bool(cut)))
    return Report(
        findings=tuple(grouped(document, found.values())),
        runs=tuple(runs),
        warnings=tuple(grouped(document, warnings.values())),
        digest=proof_digest_of(document),
        cut=(*cut, *_cut_parameters(document, bounds)) if parameters is None else tuple(cut),
    )


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


def _collect(found: dict[tuple[str, str], Finding], new: Iterable[Finding]) -> None:
    """Add *new* findings; of equal ones the shortest trace is kept."""
    for finding in new:
        key = (finding.kind, finding.sentence)
        if key not in found or len(finding.trace) < len(found[key].trace):
            found[key] = finding


def _cut_parameters(document: Document, bounds: Bounds) -> Iterator[str]:
    for name, datum in document.parameters.items():
        if datum.values is None:
            yield f"1 <= {name} <= {bounds.counts}"


def _idle_transitions(
    marks: Marked, taken: set[int], seen: set[str], *, is_cut: bool
) -> Iterator[Finding]:
    for path, sentence in never_taken(marks, taken):
        yield Finding(
            kind="a transition that is never taken",
            sentence=f"{sentence}, as far as was explored" if is_cut else sentence,
            path=path,
        )


def _never_reached(document: Document, seen: set[str]) -> Iterator[Finding]:
    for node in picture(document).nodes.values():
        if node.kind in ("atomic", "final") and node.id not in seen:
            yield Finding(
                kind="a state that is never reached",
                sentence=f"{node.id} is never active, whatever happens",
                path=state_path(node.id, node.above),
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
        self._reactor = reactor = Reactor(compiled.stepper(**parameters))
        first = self._reactor.begin.configuration
        self._environment = Environment(compiled.document, bounds, first)
        self._world = CheckedStep(compiled.document, reactor, self._environment, bounds, parameters)
        self._conflicts = (
            None
            if stop_at_first
            else ConflictFinder(compiled.document, compiled.context_class(**parameters))
        )
        self._graph: Graph[Situation, Input] = Graph()
        self.found: dict[tuple[str, str], Finding] = {}
        self.warnings: dict[tuple[str, str], Finding] = {}

    def explored(self) -> Explored:
        """Explore, and return everything that was seen."""
        run = self._run()
        return Explored(
            run=run,
            active=frozenset(name for now in self._graph.nodes for name in now.configuration),
            taken=frozenset(self._reactor.taken),
            cut=tuple(self._world.cut),
            found=tuple(self.found.values()),
            warnings=tuple(self.warnings.values()),
        )

    def _run(self) -> Run:
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
                if self._conflicts is not None and (why := self._conflicts.find(now, what)):
                    self._note("a conflict between regions", why, index, (what, after), warns=True)
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
        self, kind: str, sentence: str, index: int, last: tuple[Input, Situation | None] | None,
        *, warns: bool = False,
    ) -> None:  # fmt: skip
        found = self.warnings if warns else self.found
        if (kind, sentence) in found:
            return  # found before, with a trace at least as short
        moves = [
            Move(event="begin" if what is None else str(what), configuration=now.configuration)
            for what, now in self._graph.way_to(index)
        ]
        if last is not None:
            what, after = last
            at = self._graph.nodes[index] if after is None else after
            moves.append(Move(event=str(what), configuration=at.configuration))
        found[kind, sentence] = Finding(
            kind=kind,
            sentence=sentence,
            trace=tuple(moves),
            parameters=dict(self._parameters),
            event=last[0].event if last is not None and kind == UNHANDLED else "",
        )


def _path(now: Situation) -> str:
    return ".".join(now.configuration)
