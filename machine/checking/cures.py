"""Findings in the words of their author: grouped by event, with what to write instead."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from ..document import Configuration, Document, state_path
from .findings import Finding

_MOST_NAMES = 6
UNHANDLED = "an event neither handled nor declared ignored"

#: Kind of a finding -> its cure.
_CURES = {
    "a value outside its domain": "bound the assignment, as `min(n + 1, 2)`, or add the value to "
    "the `values` of the datum",
    "a reachable state with no way to rest": "add a transition that something must trigger, or "
    "name the state under `promises.rest` if it may last",
    "an activity or timer that outlives its state": "cancel it on exit; `invoke` and `after` do so",
    "an activity started twice": "cancel it before it is started again; `invoke` does so",
    "a state that is never reached": "check the guards on the way to it, or remove it",
    "a transition that is never taken": "check its guards and the transitions before it, or remove "
    "it",
    "a conflict between regions": "give the event to one region only, or handle it in the parallel "
    "state",
    "a state from which the chart cannot end": "add a transition towards a final state",
}


def grouped(document: Document, findings: Iterable[Finding]) -> list[Finding]:
    """Return *findings*, with one for each unhandled event, and each with its cure."""
    found: list[Finding] = []
    unhandled: dict[str, list[Finding]] = {}
    for finding in findings:
        if finding.kind == UNHANDLED:
            unhandled.setdefault(finding.event, []).append(finding)
        else:
            cure = finding.cure or _CURES.get(finding.kind, "")
            found.append(replace(finding, cure=cure))
    found += [_one(document, event, group) for event, group in unhandled.items()]
    return sorted(found, key=lambda finding: len(finding.trace))


def _one(document: Document, event: str, group: list[Finding]) -> Finding:
    first = min(group, key=lambda finding: len(finding.trace))
    places = dict.fromkeys(finding.trace[-1].configuration for finding in group)
    states = list(dict.fromkeys(_handler(document, place) for place in places))
    named = _listed([f"`{state}`" for state in states])
    paths = {name: state_path(name, above) for name, _, above in document.states()}
    return replace(
        first,
        sentence=f"{event} in {_listed(['.'.join(place) for place in places])}",
        cure=f"add `{{event: {event}}}` with what follows to {named}, or `ignores: [{event}]`",
        states=tuple(states),
        path=paths[states[0]],
    )


def _handler(document: Document, configuration: Configuration) -> str:
    """Return the state that should handle an event: the leaf, or the parallel state around it."""
    parallel = {name for name, definition, _ in document.states() if definition.get("parallel")}
    return next((name for name in configuration if name in parallel), configuration[-1])


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return ", ".join(names[:_MOST_NAMES]) + more
