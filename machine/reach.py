"""States that can still come: what follows a configuration, whatever the guards answer."""

from __future__ import annotations

from collections.abc import Iterator

from .decision_table import Table, Tree
from .document import Configuration, Document


class Reach:
    """Answers which states can be active after a step.

    Args:
        document: The chart.
        table: Its decision table; without one, every state can come from everywhere.

    Attributes:
        lasting: States that are active after some step. A state that is always left by an
            eventless transition is not among them.
    """

    def __init__(self, document: Document, table: Table | None) -> None:
        self._all = frozenset(name for name, _, _ in document.states())
        self._table = table
        self._known: dict[Configuration, frozenset[str]] = {}
        self.lasting = (
            self._all
            if table is None
            else frozenset(name for configuration in table.rows for name in configuration)
        )

    def states(self, configuration: Configuration) -> frozenset[str]:
        """Return all states that are active in *configuration* or can be later."""
        if self._table is None:
            return self._all
        found = self._known.get(configuration)
        if found is None:
            found = self._known[configuration] = frozenset(
                name for reached in self._closure(configuration) for name in reached
            )
        return found

    def _closure(self, configuration: Configuration) -> set[Configuration]:
        assert self._table is not None
        seen = {configuration}
        todo = [configuration]
        while todo:
            for tree in self._table.rows.get(todo.pop(), {}).values():
                for reached in ends(tree):
                    if reached not in seen:
                        seen.add(reached)
                        todo.append(reached)
        return seen


def ends(tree: Tree) -> Iterator[Configuration]:
    """Yield every configuration in which *tree* can end."""
    todo = [tree]
    while todo:
        match todo.pop():
            case ("goto" | "leave", configuration):
                yield configuration
            case ("do", _, after) | ("remember", _, _, after):
                todo.append(after)
            case ("ask", _, yes, no):
                todo += [yes, no]
            case ("recall", _, by_states, without):
                todo += [*by_states.values(), without]
