"""Decision table: every answer of the python-statemachine class, recorded once.

For each configuration and event, python-statemachine takes the event with a recorder in place
of the context: it notes actions and answers guards in every combination. The result is a tree of
do, ask and goto. Guards must therefore depend on the context only, and actions must change nothing
else, which the expression language of a document guarantees. A guard is asked again only after an
action that may have changed its answer.

The memory of history states is recorded likewise: a tree notes what is remembered, and branches
where it is recalled.

A cycle of eventless transitions is found when the machine comes back to a configuration and no
guard was asked on the way; the tree ends there. A cycle whose guards depend on data that its own
actions change has no finite tree, so such a chart has no table.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any, TypeAlias

from ..dataclass import dataclass, field
from .document import Configuration, Document
from .errors import ChartError
from .format.expressions import reads
from .format.name_rules import parsed

#: ("do", action, tree) | ("ask", guard, tree, tree) | ("goto", configuration) | ("refuse",)
#: | ("loop", states): eventless transitions go round for ever
#: | ("remember", history, states, tree) | ("recall", history, {states: tree}, tree without memory)
#: | ("leave", configuration): as goto, after something was remembered
Tree: TypeAlias = tuple[Any, ...]
#: (kind, name, answer) of one thing that happened in a run of the library.
_Trace: TypeAlias = list[tuple[str, str, Any]]

_MOST_ANSWERS = 4096
_MOST_QUESTIONS = 30_000  # some 100 us each; the shipped chart takes 817
_MOST_ROUNDS = 8  # visits of one configuration in a macrostep, each with guards asked anew


@dataclass(frozen=True, slots=True, kw_only=True)
class Loop:
    """A cycle of eventless transitions that was found.

    Attributes:
        event: Event after which it begins; empty for the start of the chart.
        configuration: Configuration in which the event came; empty at the start.
        states: States of the cycle, in the order in which they are entered.
        answers: Guard -> answer, of all guards that hold the machine in it.
    """

    event: str
    configuration: Configuration
    states: tuple[str, ...]
    answers: dict[str, bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """The behavior of a chart as data.

    Attributes:
        initial: Configuration at the start; any one if the start asks guards.
        entry_actions: Actions run on entering it, in order.
        rows: Configuration -> event -> tree; an event without a tree is not handled.
        final: Configurations in which the chart has ended.
        has_memory: The chart has history states.
        start: What the start does if it asks guards, in place of *initial* and *entry_actions*.
        loops: Cycles of eventless transitions that some tree ends in.
        first: Row of *initial*, and True if that is final: both are looked up once, since the hash
            of a configuration is computed at each lookup.
    """

    initial: Configuration
    entry_actions: tuple[str, ...]
    rows: dict[Configuration, dict[str, Tree]]
    final: frozenset[Configuration]
    has_memory: bool = False
    start: Tree | None = None
    loops: tuple[Loop, ...] = field(default=(), compare=False)
    first: tuple[dict[str, Tree], bool] = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        """Look up the initial row."""
        first = self.rows[self.initial], self.initial in self.final
        object.__setattr__(self, "first", first)


class _LoopError(Exception):
    """The macrostep comes back to where it was, and no guard can end it."""


class _EndlessError(Exception):
    """The macrostep goes round for as long as its guards say so: it has no finite tree."""


class _Memory(dict[str, Any]):
    """Memory of history states that answers from the recorder's script."""

    def __init__(self, recorder: _Recorder) -> None:
        super().__init__()
        self._recorder = recorder

    def __contains__(self, history: object) -> bool:
        return self._recorder.recall(str(history)) is not None

    def __getitem__(self, history: str) -> Any:
        return [self._recorder.states[name] for name in self._recorder.recall(history) or ()]

    def __setitem__(self, history: str, states: Any) -> None:
        self._recorder.remember(history, states)


class _Recorder:
    """Replaces a context: records actions, and answers guards and histories from a script."""

    def __init__(self, document: Document) -> None:
        self.state: Any = None
        self.states: dict[str, Any] = {}
        self.kept: Any = tuple
        self.known_memories: dict[str, dict[tuple[str, ...], None]] = {}
        read = {
            name: reads(parsed(document, text, f"guards.{name}"))
            for name, text in document.guards.items()
        }
        #: Action -> guards whose answers it may change.
        self._changes = {
            name: frozenset(g for g, names in read.items() if not names.isdisjoint(action.assigns))
            for name, action in document.actions.items()
        }
        self.reset([])

    def reset(self, script: list[Any]) -> None:
        self.trace: _Trace = []
        self.answers: dict[str, bool] = {}
        self._script, self._asked = script, 0
        self._memory: dict[str, tuple[str, ...] | None] = {}
        self._visits: dict[tuple[Configuration, tuple[str, ...]], list[int]] = {}
        self._path: list[tuple[Configuration, tuple[str, ...], int]] = []

    def note(self, action: str) -> None:
        self.trace.append(("do", action, None))
        for guard in self._changes[action]:
            self.answers.pop(guard, None)

    def ask(self, guard: str) -> bool:
        answer = self.answers.get(guard)
        if answer is None:
            answer = self.answers[guard] = bool(self._next(False))
            self.trace.append(("ask", guard, answer))
        return answer

    def recall(self, history: str) -> tuple[str, ...] | None:
        if history not in self._memory:
            answer = self._memory[history] = self._next(None)
            self.trace.append(("recall", history, answer))
        return self._memory[history]

    def remember(self, history: str, states: Any) -> None:
        kept = self._memory[history] = self.kept(states)
        self.known_memories.setdefault(history, {}).setdefault(kept)
        self.trace.append(("remember", history, kept))

    def _next(self, default: Any) -> Any:
        answer = self._script[self._asked] if self._asked < len(self._script) else default
        self._asked += 1
        return answer

    def visit(self, configuration: Configuration, pending: tuple[str, ...]) -> None:
        """Note that a microstep without an event of a user begins in *configuration*."""
        visits = self._visits.setdefault((configuration, pending), [])
        self._path.append((configuration, pending, self._asked))
        if visits and visits[-1] == self._asked:
            raise _LoopError
        visits.append(self._asked)
        if len(visits) > _MOST_ROUNDS:
            raise _EndlessError

    def loop_states(self) -> tuple[str, ...]:
        """Return the states that the cycle found last enters, in order."""
        last = self._path[-1]
        around = [step[0] for step in self._path[self._path.index(last) :]]
        entered = (
            name for before, after in pairwise(around) for name in after if name not in before
        )
        return tuple(dict.fromkeys(entered)) or last[0][-1:]


def _recorder_of(document: Document) -> _Recorder:
    def noting(name: str) -> Any:
        return lambda self: self.note(name)

    def asking(name: str) -> Any:
        return lambda self: self.ask(name)

    methods: dict[str, Any] = {name: noting(name) for name in document.actions}
    methods.update({name: asking(name) for name in document.guards})
    cls: type[_Recorder] = type("Recorder", (_Recorder,), methods)
    return cls(document)


def compile_table(document: Document) -> Table | None:
    """Compile *document*.

    Returns:
        The table; None if a cycle of eventless transitions depends on data that it changes.

    Raises:
        ChartError: Its table would be too large, or python-statemachine rejects the structure.
    """
    try:
        return _Compiler(document).table()
    except _EndlessError:
        return None


class _Compiler:
    """Runs the library in every configuration."""

    def __init__(self, document: Document) -> None:
        from .microsteps import MicrostepRunner

        self._document = document
        self._recorder = recorder = _recorder_of(document)
        self._runner = MicrostepRunner(document)
        self._machine = machine = self._runner.make(recorder)
        recorder.states = {state.id: state for state in machine.states_map.values()}
        recorder.kept = self._runner.kept
        machine.history_values = _Memory(recorder)
        self._rows: dict[Configuration, dict[str, Tree]] = {}
        self._final: set[Configuration] = set()
        self._interned: dict[Configuration, Configuration] = {}
        self._todo: list[Configuration] = []
        self._recalling: dict[tuple[Configuration, str], None] = {}
        self._loops: list[Loop] = []
        self._questions = 0
        #: State -> events that its own transitions take.
        self._taken_by = {
            name: {
                event
                for item in definition.get("transitions") or ()
                for event in str(item.get("event") or "").split()
            }
            for name, definition, _ in document.states()
        }
        self._takes_any = {
            name for name, events in self._taken_by.items() if any("*" in e for e in events)
        }

    def table(self) -> Table:
        recorder = self._recorder
        start = self._tree("", ())
        entry: list[str] = []
        tree = start
        while tree[0] == "do":
            entry.append(tree[1])
            tree = tree[2]
        is_plain = tree[0] == "goto"
        while self._todo or self._recalling:
            while self._todo:
                self._row(self._todo.pop())
            memories = _sizes(recorder)
            recalling, self._recalling = self._recalling, {}
            for configuration, event in recalling:
                if event:
                    self._event(configuration, event)
                else:
                    start = self._tree("", ())
            if not self._todo and memories == _sizes(recorder):
                break
        if not self._rows:  # the start never ends
            self._rows[()] = {}
        return Table(
            initial=tree[1] if is_plain else next(iter(self._rows)),
            entry_actions=tuple(entry) if is_plain else (),
            rows=self._rows, final=frozenset(self._final),
            has_memory=any(d.get("history") for _, d, _ in self._document.states()),
            start=None if is_plain else start, loops=tuple(self._loops),
        )  # fmt: skip

    def _visit(self, pending: tuple[str, ...]) -> None:
        self._recorder.visit(self._runner.configuration_of(self._machine), pending)

    def _note_loop(self, event: str, configuration: Configuration) -> None:
        recorder = self._recorder
        self._loops.append(
            Loop(
                event=event,
                configuration=configuration,
                states=recorder.loop_states(),
                answers=dict(recorder.answers),
            )
        )

    def _reach(self, configuration: Configuration) -> Configuration:
        found = self._interned.setdefault(configuration, configuration)
        if self._machine.is_terminated:
            self._final.add(found)
        if found not in self._rows:
            self._todo.append(found)
        return found

    def _row(self, configuration: Configuration) -> None:
        if configuration in self._rows:
            return
        self._rows[configuration] = {}
        if configuration in self._final:
            return
        takes = [self._taken_by[name] for name in configuration]
        is_any = not self._takes_any.isdisjoint(configuration)
        for event in self._document.events:
            if is_any or any(event in events or _has_prefix(event, events) for events in takes):
                self._event(configuration, event)

    def _event(self, configuration: Configuration, event: str) -> None:
        tree = self._tree(event, configuration)
        if tree != ("refuse",):
            self._rows[configuration][event] = tree

    def _tree(self, event: str, configuration: Configuration) -> Tree:
        """Return what *event* does in *configuration*; without an event, what the start does."""
        runs: list[tuple[_Trace, Tree]] = []
        scripts: list[list[Any]] = [[]]
        while scripts:
            script = scripts.pop()
            runs.append(self._run(configuration, event, script))
            trace = runs[-1][0]
            answers = [(kind, name, a) for kind, name, a in trace if kind in ("ask", "recall")]
            given = [answer for _, _, answer in answers]
            for at in range(len(script), len(answers)):
                others = self._others(answers[at][0], answers[at][1])
                scripts += [[*given[:at], other] for other in others]
            if any(kind == "recall" for kind, _, _ in answers):
                self._recalling[configuration, event] = None
            self._count(event, len(runs))
        return _merge(runs)

    def _others(self, kind: str, name: str) -> Iterator[Any]:
        """Yield the answers to try besides the default one."""
        if kind == "ask":
            yield True
        else:
            yield from list(self._recorder.known_memories.get(name, ()))

    def _count(self, event: str, runs: int) -> None:
        self._questions += 1
        for where, found, most in (
            (f"events.{event}", runs, _MOST_ANSWERS), ("chart", self._questions, _MOST_QUESTIONS),
        ):  # fmt: skip
            if found > most:
                why = f"expected at most {most} ways through its guards, found more"
                raise ChartError(where, why)

    def _run(
        self, configuration: Configuration, event: str, script: list[Any]
    ) -> tuple[_Trace, Tree]:
        from statemachine.exceptions import TransitionNotAllowed

        from .microsteps import put

        recorder = self._recorder
        recorder.reset(script)
        put(self._machine, recorder, configuration)
        try:
            if event:
                self._runner.take(self._machine, event, self._visit)
            else:
                self._runner.begin(self._machine, self._visit)
        except TransitionNotAllowed:
            return recorder.trace, ("refuse",)
        except _LoopError:
            self._note_loop(event, configuration)
            return recorder.trace, ("loop", self._loops[-1].states)
        has_changed = any(kind == "remember" for kind, _, _ in recorder.trace)
        reached = self._reach(self._runner.configuration_of(self._machine))
        return recorder.trace, ("leave" if has_changed else "goto", reached)


def _sizes(recorder: _Recorder) -> dict[str, int]:
    return {name: len(values) for name, values in recorder.known_memories.items()}


def _has_prefix(event: str, events: set[str]) -> bool:
    """Return True if *event* has dotted words and one of *events* may name its first ones."""
    return "." in event and any(event.startswith(f"{other}.") for other in events)


def _merge(runs: list[tuple[_Trace, Tree]]) -> Tree:
    trace, end = runs[0]
    if not trace:
        assert len(runs) == 1, "a guard answered the same twice led to different ends"
        return end
    kind, name, answer = trace[0]
    rest = [(run[1:], reached) for run, reached in runs]
    if kind == "do":
        return ("do", name, _merge(rest))
    if kind == "remember":
        return ("remember", name, answer, _merge(rest))
    by_answer: dict[Any, list[tuple[_Trace, Tree]]] = {}
    for (run, _), tail in zip(runs, rest, strict=True):
        by_answer.setdefault(run[0][2], []).append(tail)
    if kind == "ask":
        return ("ask", name, _merge(by_answer[True]), _merge(by_answer[False]))
    without = _merge(by_answer.pop(None))
    return ("recall", name, {kept: _merge(runs) for kept, runs in by_answer.items()}, without)
