"""States that can still come: what follows a configuration, whatever the guards answer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property

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

    @cached_property
    def remembered(self) -> Mapping[str, frozenset[Configuration]]:
        """History state -> all that it can remember; empty without a table."""
        found: dict[str, set[Configuration]] = {}
        for row in self._table.rows.values() if self._table is not None else ():
            for tree in row.values():
                for history, states in _memories(tree):
                    found.setdefault(history, set()).add(states)
        return {history: frozenset(memories) for history, memories in found.items()}

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
    for node in _nodes(tree):
        if node[0] in ("goto", "leave"):
            yield node[1]


def _memories(tree: Tree) -> Iterator[tuple[str, Configuration]]:
    """Yield each history state that *tree* sets, and the states that it then remembers."""
    for node in _nodes(tree):
        if node[0] == "remember":
            yield node[1], node[2]


def _nodes(tree: Tree) -> Iterator[Tree]:
    """Yield *tree* and all trees inside."""
    todo = [tree]
    while todo:
        node = todo.pop()
        yield node
        match node:
            case ("do", _, after) | ("remember", _, _, after):
                todo.append(after)
            case ("ask", _, yes, no):
                todo += [yes, no]
            case ("recall", _, by_states, without):
                todo += [*by_states.values(), without]
