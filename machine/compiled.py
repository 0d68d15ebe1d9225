"""Compiled chart: context class, decision table and steppers of a document."""

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
    """A document compiled to its context class and its decision table.

    Attributes:
        document: The document.
        context_class: Class made by `build_context`.
        table: Decision table; None if the chart has no finite one, because of history states.
    """

    def __init__(self, document: Document) -> None:
        self.document = document
        self.context_class = build_context(document)
        self.table: Table | None = shipped_table(document) or compile_table(document)

    def stepper(self, **parameters: Value) -> Stepper:
        """Make an instance, by the table if there is one, else by python-statemachine."""
        context = self.context_class(**parameters)
        if self.table is not None:
            return TableStepper(self.table, context)
        return self.reference(**parameters)

    def reference(self, **parameters: Value) -> ChartStepper:
        """Make an instance that python-statemachine itself interprets."""
        from .reference_stepper import ChartStepper
        from .statemachine_chart import compile_chart  # imports the library, which is rarely needed

        return ChartStepper(compile_chart(self.document), self.context_class(**parameters))
