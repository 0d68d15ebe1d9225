"""Conflicts in parallel states: two regions take one event, and both would leave a common state.

By the rules of SCXML, the transition of the later region is then dropped without a sign.

Source: SCXML 1.0, 3.13, selecting transitions and removing conflicting ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..context import Context
from ..document import Configuration, Document, Value, as_list, split_words
from .explore import Input, Situation


class ConflictFinder:
    """Finds the conflicts of one document under one set of parameters.

    Args:
        document: The chart.
        context: A context that is used for nothing else; guards are asked in it.
    """

    def __init__(self, document: Document, context: Context) -> None:
        self._context = context
        self._above = {name: above for name, _, above in document.states()}
        self._definitions = {name: definition for name, definition, _ in document.states()}
        self._is_parallel = any(d.get("parallel") for d in self._definitions.values())
        self._histories = {
            history: name
            for name, definition in self._definitions.items()
            for history in definition.get("history") or {}
        }
        self._known: dict[tuple[Configuration, tuple[Value, ...], Input], str] = {}

    def find(self, now: Situation, what: Input) -> str:
        """Return the conflict that *what* causes in *now* as a sentence, or an empty text."""
        if not self._is_parallel:
            return ""
        key = (now.configuration, now.values, what)
        if key not in self._known:
            self._known[key] = self._conflict(now, what)
        return self._known[key]

    def _conflict(self, now: Situation, what: Input) -> str:
        self._context.restore(now.values)
        for name, value in what.data:
            setattr(self._context, name, value)
        active = set(now.configuration)
        chosen: dict[str, tuple[int, Mapping[str, Any]]] = {}
        for name in now.configuration:
            if not self._definitions[name].get("states"):
                found = self._selected(name, what.event)
                if found is not None:
                    state, index, item = found
                    chosen.setdefault(state, (index, item))
        sources = list(chosen)
        for later, second in enumerate(sources):
            for first in sources[:later]:
                is_inside = first in self._above[second] or second in self._above[first]
                left = self._left(first, chosen[first][1], active)
                if not is_inside and left & self._left(second, chosen[second][1], active):
                    return f"{what.event} is taken by {first}, and {second} takes it in vain"
        return ""

    def _selected(self, leaf: str, event: str) -> tuple[str, int, Mapping[str, Any]] | None:
        """Return the innermost transition for *event* at or around *leaf* whose guards hold."""
        for state in (leaf, *reversed(self._above[leaf])):
            for index, item in enumerate(self._definitions[state].get("transitions") or ()):
                if event in split_words(item.get("event")) and self._holds(item):
                    return state, index, item
        return None

    def _holds(self, item: Mapping[str, Any]) -> bool:
        return all(getattr(self._context, name)() for name in as_list(item.get("cond"))) and not (
            any(getattr(self._context, name)() for name in as_list(item.get("unless")))
        )

    def _left(self, source: str, item: Mapping[str, Any], active: set[str]) -> set[str]:
        """Return the active states that the transition leaves."""
        targets = [self._histories.get(t, t) for t in split_words(item.get("target"))]
        if not targets:
            return set()
        if item.get("internal"):
            domain: str | None = source
        else:
            domain = self._domain(source, targets)
        return {name for name in active if domain is None or domain in self._above[name]}

    def _domain(self, source: str, targets: list[str]) -> str | None:
        """Return the innermost compound state around source and targets; None for the chart."""
        for outer in reversed(self._above[source]):
            is_around = all(outer in self._above[target] for target in targets)
            if is_around and not self._definitions[outer].get("parallel"):
                return outer
        return None
