"""Decision table: every answer of the python-statemachine class, recorded once.

For each configuration and event, python-statemachine takes the event with a recorder in place
of the context: it notes actions and answers guards in every combination. The result is a tree of
do, ask and goto. Guards must therefore depend on the context only, and actions must change nothing
else, which the expression language of a document guarantees.

Charts with history states have no such table, because their memory is not in the configuration.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

from .document import Configuration, Document
from .errors import ChartError

#: ("do", action, tree) | ("ask", guard, tree, tree) | ("goto", configuration) | ("refuse",)
Tree: TypeAlias = tuple[Any, ...]

_MOST_ANSWERS = 4096
_MOST_QUESTIONS = 30_000  # some 100 us each; the shipped chart takes 817


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """The behavior of a chart as data.

    Attributes:
        initial: Configuration at the start.
        entry_actions: Actions run on entering it, in order.
        rows: Configuration -> event -> tree; an event without a tree is not handled.
        final: Configurations in which the chart has ended.
    """

    initial: Configuration
    entry_actions: tuple[str, ...]
    rows: dict[Configuration, dict[str, Tree]]
    final: frozenset[Configuration]


class _Recorder:
    """Replaces a context: records actions, and answers guards from a script."""

    def __init__(self) -> None:
        self.state: Any = None
        self.trace: list[tuple[str, str, bool]] = []
        self.script: list[bool] = []
        self.asked = 0

    def reset(self, script: list[bool]) -> None:
        self.trace, self.script, self.asked = [], script, 0

    def note(self, action: str) -> None:
        self.trace.append(("do", action, False))

    def ask(self, guard: str) -> bool:
        answer = self.asked < len(self.script) and self.script[self.asked]
        self.asked += 1
        self.trace.append(("ask", guard, answer))
        return answer


def _recorder_class(document: Document) -> type[_Recorder]:
    def noting(name: str) -> Any:
        return lambda self: self.note(name)

    def asking(name: str) -> Any:
        return lambda self: self.ask(name)

    methods: dict[str, Any] = {name: noting(name) for name in document.actions}
    methods.update({name: asking(name) for name in document.guards})
    return type("Recorder", (_Recorder,), methods)


def compile_table(document: Document) -> Table | None:
    """Compile *document*; return None if it has history states.

    Raises:
        ChartError: Its table would be too large.
    """
    if any(definition.get("history") for _, definition, _ in document.states()):
        return None
    from .statemachine_chart import compile_chart, configuration_of

    recorder = _recorder_class(document)()
    machine = compile_chart(document)(recorder)
    initial = configuration_of(machine)
    entry = tuple(name for kind, name, _ in recorder.trace if kind == "do")
    interned: dict[Configuration, Configuration] = {initial: initial}
    rows: dict[Configuration, dict[str, Tree]] = {}
    final: set[Configuration] = set()
    if machine.is_terminated:
        final.add(initial)
    questions = 0
    todo = [initial]
    while todo:
        configuration = todo.pop()
        if configuration in rows:
            continue
        row = rows[configuration] = {}
        if configuration in final:
            continue
        for event in document.events:
            runs: list[tuple[list[tuple[str, str, bool]], Tree]] = []
            scripts: list[list[bool]] = [[]]
            while scripts:
                script = scripts.pop()
                end = _ask(machine, recorder, configuration, event, script)
                if end[0] == "goto":
                    reached = interned.setdefault(end[1], end[1])
                    end = ("goto", reached)
                    if machine.is_terminated:
                        final.add(reached)
                    if reached not in rows:
                        todo.append(reached)
                runs.append((recorder.trace, end))
                answers = [answer for kind, _, answer in recorder.trace if kind == "ask"]
                scripts += [[*answers[:i], True] for i in range(len(script), len(answers))]
                questions += 1
                if len(runs) > _MOST_ANSWERS:
                    why = f"expected at most {_MOST_ANSWERS} ways through its guards, found more"
                    raise ChartError(f"events.{event}", f"{why}; is there an eventless loop?")
                if questions > _MOST_QUESTIONS:
                    why = f"expected at most {_MOST_QUESTIONS} ways through its guards, found more"
                    raise ChartError("chart", why)
            tree = _merge(runs)
            if tree != ("refuse",):
                row[event] = tree
    return Table(initial=initial, entry_actions=entry, rows=rows, final=frozenset(final))


def _ask(
    machine: Any, recorder: _Recorder, configuration: Configuration, event: str, script: list[bool]
) -> Tree:
    from statemachine.exceptions import TransitionNotAllowed

    from .statemachine_chart import configuration_of, resume

    recorder.reset(script)
    resume(machine, recorder, configuration)
    try:
        machine.send(event)
    except TransitionNotAllowed:
        return ("refuse",)
    return ("goto", configuration_of(machine))


def _merge(runs: list[tuple[list[tuple[str, str, bool]], Tree]]) -> Tree:
    trace, end = runs[0]
    if not trace:
        assert len(runs) == 1, "a guard answered the same twice led to different ends"
        return end
    kind, name, _ = trace[0]
    if kind == "do":
        return ("do", name, _merge([(rest[1:], reached) for rest, reached in runs]))
    yes = [(rest[1:], reached) for rest, reached in runs if rest[0][2]]
    no = [(rest[1:], reached) for rest, reached in runs if not rest[0][2]]
    return ("ask", name, _merge(yes), _merge(no))
