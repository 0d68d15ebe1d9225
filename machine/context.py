"""Context of one chart instance: guards read its data, actions change it and emit effects.

One class is generated for each document, with a method for every guard and action, so that
python-statemachine finds them by name and a decision table can call them directly.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from .document import Document, Value
from .effects import Effect
from .errors import ChartError
from .format.expressions import bounded, can_grow, on_self
from .format.name_rules import parsed


class Context(Protocol):
    """Interface of every generated class, besides one method for each guard and action.

    Attributes:
        state: Attribute in which python-statemachine keeps the configuration.
        out: Effects emitted in this step, in order; the stepper takes them out.
        ran: Names of the actions of this step, in order, of a class that is traced.
        chart_document: The document of the class.
    """

    state: object
    out: list[Effect]
    ran: list[str]
    chart_document: Document

    def __init__(self, **parameters: Value) -> None: ...

    def values(self) -> tuple[Value, ...]:
        """Return the data (not the parameters), in the order of the document."""
        ...

    def restore(self, values: tuple[Value, ...]) -> None:
        """Restore what `values` returned."""
        ...

    def parameters(self) -> dict[str, Value]:
        """Return the parameters by name."""
        ...

    def receive(self, **fields: Value) -> None:
        """Set the fields of an event; those not given get their defaults.

        Raises:
            TypeError: No event has such a field.
        """
        ...


def build_context(document: Document, *, traced: bool = False) -> type[Context]:
    """Generate the context class of *document*.

    The source is composed of expressions that were parsed and checked name by name; no text of the
    document reaches it unparsed.

    Args:
        document: The chart.
        traced: Each action notes its name in ``ran``.
    """
    lines = _state_source(document, traced=traced)
    effects: list[Effect] = []
    for name, text in document.guards.items():
        source = on_self(parsed(document, text, f"guards.{name}"))
        lines += [f"    def {name}(self):", f"        return bool({source})"]
    for name, action in document.actions.items():
        lines.append(f"    def {name}(self):")
        if traced:
            lines.append(f"        self.ran.append({name!r})")
        if action.when is not None:
            source = on_self(parsed(document, action.when, f"actions.{name}.when"))
            lines.append(f"        if not ({source}): return")
        if action.assigns:
            targets = ", ".join(f"self.{target}" for target in action.assigns)
            sources = ", ".join(
                _assigned(document, text, f"actions.{name}.set.{target}")
                for target, text in action.assigns.items()
            )
            lines.append(f"        {targets} = {sources}")
        if not action.assigns and not action.effects:
            lines.append("        pass")
        for effect in action.effects:
            lines.append(f"        self.out.append(effects[{len(effects)}])")
            effects.append(effect)
    scope: dict[str, object] = {"effects": tuple(effects), "refuse": _refuse}
    scope["bounded"] = bounded
    exec(compile("\n".join(lines), f"<context of {document.name}>", "exec"), scope)
    cls = scope["Generated"]
    assert isinstance(cls, type)
    cls.__name__ = cls.__qualname__ = f"{document.name}Context"
    cls.chart_document = document  # type: ignore[attr-defined]  # as the protocol has it
    return cls


def _state_source(document: Document, *, traced: bool) -> list[str]:
    """Return the lines of the class that hold its data, parameters and fields."""
    data, parameters = list(document.data), list(document.parameters)
    fields = sorted(document.event_fields())
    slots = ["state", "out", *(["ran"] if traced else []), *data, *parameters, *fields]
    lines = [
        "class Generated:",
        f"    __slots__ = {tuple(slots)!r}",
        "    def __init__(self, **parameters):",
        "        self.state = None",
        "        self.out = []",
        *(["        self.ran = []"] if traced else []),
    ]
    lines += [f"        self.{name} = {document.data[name].initial!r}" for name in data]
    for name in parameters:
        initial = document.parameters[name].initial
        lines.append(f"        self.{name} = parameters.pop({name!r}, {initial!r})")
    lines += ["        refuse(parameters)"]
    lines += [f"        self.{name} = {_default(document, name)!r}" for name in fields]
    defaults = [f"{name}={_default(document, name)!r}" for name in fields]
    lines.append(f"    def receive({', '.join(['self', *(['*'] if fields else []), *defaults])}):")
    lines += [f"        self.{name} = {name}" for name in fields] or ["        pass"]
    lines.append("    def parameters(self):")
    lines.append(f"        return {{{', '.join(f'{n!r}: self.{n}' for n in parameters)}}}")
    lines.append("    def values(self):")
    lines.append(f"        return ({''.join(f'self.{name}, ' for name in data)})")
    lines.append("    def restore(self, values):")
    lines.append(
        f"        ({''.join(f'self.{name}, ' for name in data)}) = values"
        if data
        else "        pass"
    )
    return lines


def _default(document: Document, field: str) -> Value:
    """Return the value of *field* in an event that lacks it: the first of its domain."""
    return next(event.data[field][0] for event in document.events.values() if field in event.data)


def _assigned(document: Document, text: str, where: str) -> str:
    expression = parsed(document, text, where)
    grows = can_grow(expression)  # before on_self rewrites it
    return f"{'bounded' if grows else ''}({on_self(expression)})"


def _refuse(unknown: Mapping[str, Value]) -> None:
    if unknown:
        raise ChartError(f"parameters.{next(iter(unknown))}", "the chart has no such parameter")
