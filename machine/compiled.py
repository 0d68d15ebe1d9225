"""A chart document made ready to run: context class, table, and steppers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .context import build_context
from .decision_table import Table, compile_table
from .document import Document, Value
from .shipped import shipped_table

if TYPE_CHECKING:
    from .reference_stepper import ChartStepper
from .stepper import Stepper, TableStepper


class Compiled:
    """A document made ready to run: its class, its context class and its table.

    Attributes:
        document: What it was compiled from.
        context_class: Made by `build_context`.
        table: The decision table, or None where the chart has no finite one (history).
    """

    def __init__(self, document: Document) -> None:
        self.document = document
        self.context_class = build_context(document)
        self.table: Table | None = shipped_table(document) or compile_table(document)

    def stepper(self, **parameters: Value) -> Stepper:
        """Make an instance: by table where there is one, else by python-statemachine."""
        context = self.context_class(**parameters)
        if self.table is not None:
            return TableStepper(self.table, context)
        return self.reference(**parameters)

    def reference(self, **parameters: Value) -> ChartStepper:
        """Make an instance that python-statemachine itself interprets."""
        from .reference_stepper import ChartStepper
        from .statemachine_chart import compile_chart  # loads the library, which few need

        return ChartStepper(compile_chart(self.document), self.context_class(**parameters))
