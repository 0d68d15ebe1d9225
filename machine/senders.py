"""Senders of events: a program may post those of users only.

The checker lets an event of a timer come while the timer is armed, one of an activity while that
runs, and one of the chart inside the step that raises it. From anywhere else, such an event leads
to steps that were never explored.
"""

from __future__ import annotations

from .document import Document, Origin
from .errors import EventError

#: Origins of events that come from the work of an instance itself.
OF_AN_INSTANCE: frozenset[Origin] = frozenset({"activity", "timer", "chart"})
#: The same for a service, whose process is supervised.
OF_A_SERVICE: frozenset[Origin] = OF_AN_INSTANCE | {"process"}
_WORDS: dict[Origin, str] = {"chart": "the chart itself", "process": "the process"}


def check_sender(document: Document, event: str, own: frozenset[Origin] = OF_AN_INSTANCE) -> None:
    """Check that a program may post *event*; an event that is not declared passes.

    Args:
        document: The chart.
        event: Name of the event.
        own: Origins of events that a program may not post; with ``process``, those that count
            requests are among them.

    Raises:
        EventError: Only another sender, which the error names, may send it.
    """
    declared = document.events.get(event) if isinstance(event, str) else None
    if declared is None:
        return
    requests = document.promises.requests if "process" in own else None
    if declared.origin in own:
        sender = (
            f"the {declared.origin} {declared.of!r}" if declared.of else _WORDS[declared.origin]
        )
        why = f"only {sender} sends it (`origin: {declared.origin}`)"
        returned = "let the activity return it, " if declared.origin == "activity" else ""
        cure = f"{returned}declare it with `origin: user` to post it, or use `replay` in a test"
    elif requests is not None and event in (requests.ask, requests.give_up, requests.done):
        why = "only a request sends it (`promises.requests`)"
        cure = "use `request`, `withdraw` or `finish`, or `replay` in a test"
    else:
        return
    raise EventError(event, f"{why}, and what was checked depends on that; {cure}")
