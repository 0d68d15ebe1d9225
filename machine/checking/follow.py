"""The moves of a list of events, for a trace in a diagram."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Sequence
from dataclasses import replace

from ..compiled import Compiled
from ..document import Document, Value
from ..drawing.views import View
from ..errors import ChartError
from .findings import Move


def follow(document: Document, events: Iterable[str], **parameters: Value) -> tuple[Move, ...]:
    """Return the moves of an instance of *document* that takes *events*, its creation first.

    Args:
        document: The chart.
        events: Such as ``approve`` or ``submit(value=50)``.
        parameters: Parameters of the instance.

    Raises:
        ChartError: An event is unknown, or lacks a field that it declares.
        NotHandledError: The chart does not handle an event where it comes.
    """
    stepper = Compiled(document).stepper(**parameters)
    stepper.begin()
    moves = [Move(event="begin", configuration=stepper.configuration)]
    for text in events:
        name, fields = _parsed(text)
        if name not in document.events:
            known = ", ".join(document.events)
            raise ChartError(
                "trace", f"expected an event of {document.name} ({known}), got {text!r}"
            )
        declared = document.events[name].data
        for field, domain in declared.items():
            if fields.get(field) not in domain:
                values = ", ".join(map(repr, domain))
                raise ChartError("trace", f"{text!r}: expected `{field}` as one of {values}")
        if unknown := set(fields) - set(declared):
            raise ChartError("trace", f"{text!r} has no field {min(unknown)!r}")
        stepper.step(name, fields)
        moves.append(Move(event=text.strip(), configuration=stepper.configuration))
    return tuple(moves)


def with_moves(document: Document, view: View) -> View:
    """Return *view* with the events of its trace replaced by their moves.

    Raises:
        ChartError: See `follow`.
        NotHandledError: See `follow`.
    """
    steps = view.trace if isinstance(view.trace, Sequence) else ()
    events = [step for step in steps if isinstance(step, str)]
    return replace(view, trace=follow(document, events)) if events else view


def _parsed(text: str) -> tuple[str, dict[str, Value]]:
    """Return name and fields of the event that *text* calls."""
    name, mark, rest = text.strip().partition("(")
    if not mark:
        return name, {}
    try:
        call = ast.parse(f"event({rest}", mode="eval").body
        assert isinstance(call, ast.Call)
        assert not call.args
        return name, {str(word.arg): ast.literal_eval(word.value) for word in call.keywords}
    except (SyntaxError, ValueError, AssertionError) as error:
        why = f"expected an event such as `submit(value=50)`, got {text!r}"
        raise ChartError("trace", why) from error
