"""Marks on transitions, by which an exploration notes which of them it has taken.

A marked document behaves as the original one, but each transition with an event or a guard emits
one more effect, which the exploration takes out again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from ...dataclass import dataclass
from ..document import ActionDecl, Document, as_list, split_words, state_path
from ..effects import Effect, Notify

_SIGN = "transition taken: "


@dataclass(frozen=True, slots=True)
class Marked:
    """A document with marks.

    Attributes:
        document: The marked document.
        paths: Path of each marked transition; the number of its mark is its index.
        transitions: State and definition of each marked transition, in the same order.
    """

    document: Document
    paths: tuple[str, ...]
    transitions: tuple[tuple[str, Mapping[str, Any]], ...]


def marked(document: Document) -> Marked:
    """Return *document* with a mark on each transition of its states."""
    paths: list[str] = []
    found: list[tuple[str, Mapping[str, Any]]] = []
    actions = dict(document.actions)

    def copied(states: Mapping[str, Any], above: tuple[str, ...]) -> dict[str, Any]:
        out = {}
        for name, body in states.items():
            state = dict(body or {})
            where = state_path(name, above)
            transitions = []
            for index, item in enumerate(state.get("transitions") or ()):
                mark = f"mark__{len(paths)}"
                actions[mark] = ActionDecl(effects=(Notify(f"{_SIGN}{len(paths)}"),))
                transitions.append({**item, "on": [*as_list(item.get("on")), mark]})
                paths.append(f"{where}.transitions[{index}]")
                found.append((name, item))
            if transitions:
                state["transitions"] = transitions
            if state.get("states"):
                state["states"] = copied(state["states"], (*above, name))
            out[name] = state
        return out

    chart = {**document.chart, "states": copied(document.chart["states"], ())}
    source = {**document.source, "chart": chart}
    new = replace(document, chart=chart, actions=actions, source=source)
    return Marked(new, tuple(paths), tuple(found))


def without_marks(effects: Iterable[Effect], taken: set[int]) -> tuple[Effect, ...]:
    """Return *effects* without marks, and add the numbers of these to *taken*."""
    kept = []
    for effect in effects:
        if isinstance(effect, Notify) and effect.name.startswith(_SIGN):
            taken.add(int(effect.name.removeprefix(_SIGN)))
        else:
            kept.append(effect)
    return tuple(kept)


def entered(marks: Marked, taken: set[int]) -> set[str]:
    """Return the targets of the transitions that were taken, even if the same step left them."""
    return {
        target
        for number in taken
        for target in split_words(marks.transitions[number][1].get("target"))
    }


def never_taken(marks: Marked, taken: set[int]) -> Iterator[tuple[str, str]]:
    """Yield ``(path, sentence)`` of each transition that no step has taken.

    Transitions that only ignore events are not among them: they say what may come, not what does.
    """
    for number, (path, (state, item)) in enumerate(
        zip(marks.paths, marks.transitions, strict=True)
    ):
        if number in taken or _ignores(item):
            continue
        shadow = _shadow(marks, number)
        label = f"{state}: {item.get('event') or 'at once'}"
        if item.get("target"):
            label += f" -> {item['target']}"
        if shadow is not None:
            yield path, f"{label} is shadowed: {marks.paths[shadow]} is always taken first"
        else:
            yield path, f"{label} is never taken"


def _ignores(item: Mapping[str, Any]) -> bool:
    return not any(item.get(key) for key in ("target", "on", "before", "after"))


def _shadow(marks: Marked, number: int) -> int | None:
    """Return an earlier transition of the same state that leaves nothing for this one."""
    state, item = marks.transitions[number]
    events = set(split_words(item.get("event")))
    for other in range(number):
        name, earlier = marks.transitions[other]
        is_guarded = earlier.get("cond") or earlier.get("unless")
        covers = events <= set(split_words(earlier.get("event"))) and (
            bool(events) or not earlier.get("event")
        )
        if name == state and not is_guarded and covers:
            return other
    return None
