"""The models that a request may see: all of them, or those of its key.

A key with ``models`` sees rows about its own models only. Texts in such rows (why a request waits,
why a model was stopped) may name other models: these names are replaced.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

from msgspec import Struct, structs

from ..models.catalog import ModelCatalog
from ..options import Access

Row = TypeVar("Row", bound=Struct)

OTHER = "(another model)"
_TEXTS = ("cause", "why", "error_msg", "detail", "action", "request_id")
_NAMES = ("resident", "evicted")  # lists of models beside others


class View:
    """The models that one key may see.

    Args:
        access: What the key allows.
        catalog: All models.

    Attributes:
        is_whole: The key may see all models.
    """

    def __init__(self, access: Access, catalog: ModelCatalog) -> None:
        self.is_whole = access.models is None
        self._ids: frozenset[str] = frozenset()
        self._others: re.Pattern[str] | None = None
        self._hidden: frozenset[str] = frozenset()
        if not self.is_whole:
            self._restrict(access, catalog)

    def _restrict(self, access: Access, catalog: ModelCatalog) -> None:
        names: dict[str, set[str]] = {}  # id of a model -> all its names
        for name, target in catalog.targets.items():
            names.setdefault(target.id, {target.id}).add(name)
        ids = {key for key, known in names.items() if access.allows_model(*known)}
        recorded = {target.recorded_name for target in catalog.targets.values() if target.id in ids}
        self._ids = frozenset(ids | recorded)
        own = {name for key in ids for name in names[key]}
        own |= {name for name in catalog.selectors if access.allows_model(name)}
        every = {name for known in names.values() for name in known} | set(catalog.selectors)
        self._hidden = frozenset(every - own)
        if self._hidden:
            ways = "|".join(map(re.escape, sorted(every, key=len, reverse=True)))
            self._others = re.compile(rf"(?<!\w)(?:{ways})(?!\w)")

    @property
    def ids(self) -> tuple[str, ...]:
        """Ids of the visible models, sorted; empty if all models are visible."""
        return tuple(sorted(self._ids))

    def shows(self, name: str) -> bool:
        """Return True if the model with the id *name* is visible."""
        return self.is_whole or name in self._ids

    def visible(self, names: Iterable[str]) -> list[str]:
        """Return those of *names*, ids or other names of models, that are visible."""
        return [name for name in names if self.is_whole or name not in self._hidden]

    def text(self, text: str) -> str:
        """Return *text* with the names of other models replaced."""
        if self._others is None:
            return text
        return self._others.sub(lambda found: self._shown(found[0]), text)

    def _shown(self, name: str) -> str:
        return OTHER if name in self._hidden else name

    def row(self, row: Row) -> Row:
        """Return *row* with its texts, also those of rows inside, as `text` returns them."""
        if self._others is None:
            return row
        changes = {name: self._value(name, getattr(row, name)) for name in row.__struct_fields__}
        return structs.replace(row, **changes)

    def _value(self, key: str, value: Any) -> Any:
        if isinstance(value, str):
            return self.text(value) if key in _TEXTS else value
        if isinstance(value, Struct):
            return self.row(value)
        if isinstance(value, dict):
            return {name: self._value(name, item) for name, item in value.items()}
        if isinstance(value, list):
            if key in _NAMES:
                return self.visible(value)
            return [self._value(key, item) for item in value]
        return value

    def rows(self, rows: Sequence[Row], key: str = "model") -> list[Row]:
        """Return the *rows* about visible models; their ids are in the field *key*."""
        if self.is_whole:
            return list(rows)
        return [self.row(row) for row in rows if getattr(row, key) in self._ids]

    def queue(self, queue: Row) -> Row:
        """Return *queue*, a ``Queue`` of the API, without other models."""
        if self.is_whole:
            return queue
        value: Any = queue
        swaps = [
            structs.replace(swap, evicting=self.visible(swap.evicting))
            for swap in value.swaps
            if swap.target in self._ids
        ]
        return structs.replace(
            queue, queue=self.rows(value.queue), swaps=swaps, models=self.rows(value.models)
        )

    def memory(self, state: Row) -> Row:
        """Return *state*, a ``MemoryState`` of the API, without other models."""
        if self.is_whole:
            return state
        value: Any = state
        return structs.replace(
            state, models=self.rows(value.models), learned=self.rows(value.learned),
            failures=self.rows(value.failures),
            notices=[each for each in value.notices if not each.model or self.shows(each.model)],
            away=self.rows(value.away),
        )  # fmt: skip

    def event(self, kind: str, value: Any) -> Any:
        """Return the *value* of an event as the key may see it, or None if it may not."""
        if self.is_whole or kind in _ABOUT_NO_MODEL:
            return value
        if kind == "modelStatus":
            return self.rows(value, "id")
        if kind == "queue":
            return self.queue(value)
        if kind == "memory":
            return self.memory(value)
        if kind == "transition":
            return self.row(value) if value.model in self._ids else None
        if kind == "inflight":
            return self._in_flight(value)
        if kind == "unloadTimes":
            return {name: at for name, at in value.items() if name in self._ids}
        return None

    def _in_flight(self, value: dict[str, Any]) -> dict[str, Any] | None:
        if value["operation"] == "snapshot":
            return {**value, "requests": self.rows(value["requests"])}
        if value["operation"] == "upsert":
            request = value["request"]
            return {**value, "request": self.row(request)} if self.shows(request.model) else None
        return value  # only the id of a request that has ended


#: Events about no model: the web page itself, ids, pools, or logs that were selected before.
_ABOUT_NO_MODEL = frozenset({"uiConfig", "lost", "activity", "logData", "pressure"})
