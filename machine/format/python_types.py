"""Python types of a chart: its names as literals, and a protocol of its activities.

A type checker then finds a misspelled state, event, field or activity in the program.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from keyword import iskeyword

from ..document import Document, EventDecl, Value
from .name_rules import started

_HEAD = '''"""Names of the chart {name}, for type checkers.

Written by `swapchart chart types`; write it again after a change of the chart.
"""

from collections.abc import Awaitable, Callable
from typing import Any, Literal, Never, Protocol, TypeAlias, TypedDict, TypeVar, cast, overload
'''
_CONTEXT = """
#: What an activity is called with: its context, or the hook point.
Context = TypeVar("Context", contravariant=True)
"""
_WIDTH = 96


def python_types(document: Document) -> str:
    """Return a Python module with the types of *document*."""
    activities, timers = started(document)
    events = document.events.items()
    posted = [name for name, event in events if event.origin == "user"]
    literals = {
        "State": [name for name, _, _ in document.states()],
        "Event": posted,
        "AnyEvent": list(document.events),
        "Activity": sorted(activities),
        "Timer": sorted(timers),
        "Datum": list(document.data),
        "Parameter": list(document.parameters),
    }
    abouts = {
        "State": "States of the chart.",
        "Event": "Events that a program posts.",
        "AnyEvent": "All events, those of activities, timers and the chart included.",
        "Activity": "Activities that the chart starts.",
        "Timer": "Timers that the chart starts.",
        "Datum": "Variables of an instance.",
        "Parameter": "Parameters of an instance.",
    }
    parts = [_HEAD.format(name=document.name)]
    for name, values in literals.items():
        parts.append(f"\n#: {abouts[name]}\n{name}: TypeAlias = {_literal(values)}\n")
    for name, event in events:
        if event.data:
            parts.append(_fields_class(name, event))
    parts.append("\n")
    parts += [_answer(document, activity) for activity in sorted(activities)]
    parts.append(_CONTEXT)
    parts += _protocol(sorted(activities))
    parts += _instance(document, posted)
    return "".join(parts)


def _literal(values: Sequence[Value]) -> str:
    """Return a literal type of *values*; without any, the type that has no values."""
    if not values:
        return "Never"
    text = f"Literal[{', '.join(_repr(value) for value in values)}]"
    if len(text) <= _WIDTH - 24:
        return text
    return "Literal[\n" + "".join(f"    {_repr(value)},\n" for value in values) + "]"


def _repr(value: Value) -> str:
    if not isinstance(value, str):
        return repr(value)
    escaped = value.encode("unicode_escape").decode().replace('"', '\\"')
    return f'"{escaped}"'


def _camel(name: str) -> str:
    words = "".join(char if char.isalnum() else " " for char in name).split()
    return "".join(word[:1].upper() + word[1:] for word in words)


def _fields_class(name: str, event: EventDecl) -> str:
    lines = [f'\n\nclass {_camel(name)}Fields(TypedDict):\n    """Fields of `{name}`."""\n\n']
    lines += [f"    {field}: {_literal(list(domain))}\n" for field, domain in event.data.items()]
    return "".join(lines)


def _answer(document: Document, activity: str) -> str:
    """Return the type of what *activity* returns: one of its events, or None."""
    events = {name: event for name, event in document.events.items() if event.of == activity}
    plain = [name for name, event in events.items() if not event.data]
    options = [_literal(plain)] if plain else []
    options += [
        f"tuple[{_literal([name])}, {_camel(name)}Fields]"
        for name, event in events.items()
        if event.data
    ]
    if not options or any(event.on == "done" for event in events.values()):
        options.append("None")
    about = f"Events by which `{activity}` can end."
    return f"\n#: {about}\n{_camel(activity)}Answer: TypeAlias = {' | '.join(options)}\n"


def _protocol(activities: Iterable[str]) -> Iterator[str]:
    names = [name for name in activities if name.isidentifier() and not iskeyword(name)]
    yield '\n\nclass Activities(Protocol[Context]):\n    """Functions of the activities."""\n'
    for name in names:
        yield (
            f"\n    async def {name}(self, context: Context, /) -> {_camel(name)}Answer:\n"
            f'        """Run `{name}`; return the event by which it ends."""\n        ...\n'
        )
    yield (
        "\n\ndef activities(of: Activities[Any]) -> "
        "dict[str, Callable[[Any], Awaitable[Any]]]:\n"
        '    """Return the functions by the names that a player or host takes."""\n    return {\n'
    )
    for name in names:
        yield f'        "{name}": of.{name},\n'
    yield "    }\n"


def _instance(document: Document, posted: Sequence[str]) -> Iterator[str]:
    yield '\n\nclass Instance(Protocol):\n    """An instance of the chart, by its own names."""\n'
    plain = [name for name in posted if not document.events[name].data]
    fielded = [name for name in posted if document.events[name].data]
    overloads = [f"event: {_literal(plain)}"] if plain else []
    overloads += [
        f"event: {_literal([name])}, fields: {_camel(name)}Fields | None = None" for name in fielded
    ]
    decorator = "    @overload\n" if len(overloads) > 1 else ""
    for arguments in overloads:
        yield f"\n{decorator}    def post(self, {arguments}) -> Any: ...\n"
    yield "\n    def wait_for(self, state: State) -> Awaitable[Any]:\n"
    yield '        """Wait until *state* is active."""\n        ...\n'
    yield '\n\ndef typed(instance: object) -> Instance:\n    """Return *instance* with the types of'
    yield ' this chart."""\n    return cast(Instance, instance)\n'
