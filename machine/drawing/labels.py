"""Labels of a drawing: durations of timers, and lines that several transitions share."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from ..document import Document
from ..effects import StartTimer
from .diagram_model import Label


def durations(document: Document) -> dict[str, str]:
    """Return event -> duration of its timer in words, for timers whose duration is known."""
    known = {name: _duration(seconds) for name, seconds in document.timers.items()}
    for name, action in document.actions.items():
        timers = [effect.timer for effect in action.effects if isinstance(effect, StartTimer)]
        parts = document.notes.get(name, "").split(", ")
        if len(timers) == 1 and parts[0]:
            known[timers[0]] = parts[0]
        for part in parts if len(timers) > 1 else ():
            timer, _, text = part.partition(" ")
            known[timer] = text
    return {
        name: known[event.of]
        for name, event in document.events.items()
        if event.origin == "timer" and event.of in known
    }


def _duration(seconds: float) -> str:
    """Return a duration in words, such as ``2 d`` or ``1 h 30 min``."""
    parts, rest = [], seconds
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        count, rest = divmod(rest, length)
        parts += [f"{count:g} {unit}"] if count else []
    return " ".join(parts + ([f"{rest:g} s"] if rest or not parts else []))


def merged(labels: Iterable[Label]) -> list[Label]:
    """Return *labels* with those that differ only in events merged."""
    groups: dict[tuple[str, tuple[str, ...], str, bool], list[str]] = {}
    for label in labels:
        key = (label.guard, label.actions, label.origin, not label.events)
        groups.setdefault(key, []).extend(label.events)
    return [
        Label(events=tuple(dict.fromkeys(events)), guard=guard, actions=actions, origin=origin)
        for (guard, actions, origin, _), events in groups.items()
    ]


def summary(labels: Sequence[Label]) -> Iterator[Label]:
    """Yield one line for each origin; guards and actions stay only if they are all the same."""
    groups: dict[tuple[str, bool], list[Label]] = {}
    for label in labels:
        groups.setdefault((label.origin, not label.events), []).append(label)
    for (origin, _), group in groups.items():
        guards = {label.guard for label in group}
        actions = {label.actions for label in group}
        yield Label(
            events=tuple(dict.fromkeys(event for label in group for event in label.events)),
            guard=guards.pop() if len(guards) == 1 else "",
            actions=actions.pop() if len(actions) == 1 else (),
            origin=origin,
        )
