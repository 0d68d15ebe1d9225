"""What of the models a request may see: all of them, or those that its key is for.

A key with ``models`` sees rows about its own models only. Texts in such rows (why a request waits,
why a model was stopped) may name others: these names are replaced.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

from ..models.catalog import ModelCatalog
from ..options import Access

Row: TypeAlias = dict[str, Any]

OTHER = "(another model)"
_TEXTS = ("cause", "why", "error_msg", "detail", "action")


class View:
    """The models that one key may see.

    Args:
        access: What the key allows.
        catalogue: All models.

    Attributes:
        is_whole: All of them.
    """

    def __init__(self, access: Access, catalogue: ModelCatalog) -> None:
        self.is_whole = access.models is None
        self._ids: frozenset[str] = frozenset()
        self._others: re.Pattern[str] | None = None
        self._hidden: frozenset[str] = frozenset()
        if not self.is_whole:
            self._look(access, catalogue)

    def _look(self, access: Access, catalogue: ModelCatalog) -> None:
        names: dict[str, set[str]] = {}  # id of a model -> all that it is called
        for name, target in catalogue.targets.items():
            names.setdefault(target.id, {target.id}).add(name)
        self._ids = frozenset(key for key, known in names.items() if access.allows_model(*known))
        own = {name for key in self._ids for name in names[key]}
        own |= {name for name in catalogue.selectors if access.allows_model(name)}
        every = {name for known in names.values() for name in known} | set(catalogue.selectors)
        self._hidden = frozenset(every - own)
        if self._hidden:
            ways = "|".join(map(re.escape, sorted(every, key=len, reverse=True)))
            self._others = re.compile(rf"(?<!\w)(?:{ways})(?!\w)")

    @property
    def ids(self) -> tuple[str, ...]:
        """Ids of the models that are shown, where not all are; sorted."""
        return tuple(sorted(self._ids))

    def shows(self, name: str) -> bool:
        """Return True if the model with the id *name* may be seen."""
        return self.is_whole or name in self._ids

    def those(self, names: Iterable[str]) -> list[str]:
        """Return those of *names*, ids or other names of models, that may be seen."""
        return [name for name in names if self.is_whole or name not in self._hidden]

    def text(self, text: str) -> str:
        """Return *text* with the names of other models replaced."""
        if self._others is None:
            return text
        return self._others.sub(lambda found: self._shown(found[0]), text)

    def _shown(self, name: str) -> str:
        return OTHER if name in self._hidden else name

    def row(self, row: Row) -> Row:
        """Return *row* with its texts as `text` returns them, also those of rows within."""
        if self._others is None:
            return row
        return {key: self._value(key, value) for key, value in row.items()}

    def _value(self, key: str, value: Any) -> Any:
        if isinstance(value, str):
            return self.text(value) if key in _TEXTS else value
        if isinstance(value, dict):
            return self.row(value)
        if isinstance(value, list):
            return [self._value(key, item) for item in value]
        return value

    def rows(self, rows: Sequence[Row], key: str = "model") -> list[Row]:
        """Return the *rows* about models that may be seen; their ids are under *key*."""
        if self.is_whole:
            return list(rows)
        return [self.row(row) for row in rows if row[key] in self._ids]

    def queue(self, value: Row) -> Row:
        """Return the *value* of ``queue_facts.queue_value``, without other models."""
        if self.is_whole:
            return value
        swaps = [
            {**swap, "evicting": self.those(swap["evicting"])}
            for swap in value["swaps"] if swap["target"] in self._ids
        ]  # fmt: skip
        models = self.rows(value["models"])
        return {**value, "queue": self.rows(value["queue"]), "swaps": swaps, "models": models}

    def event(self, kind: str, value: Any) -> Any:
        """Return the *value* of an event, as it may be seen; None if it may not."""
        if self.is_whole or kind in _ABOUT_NOTHING:
            return value
        if kind == "modelStatus":
            return self.rows(value, "id")
        if kind == "queue":
            return self.queue(value)
        if kind == "transition":
            return self.row(value) if value["model"] in self._ids else None
        if kind == "inflight":
            return self._flight(value)
        return None

    def _flight(self, value: Row) -> Row | None:
        if value["operation"] == "snapshot":
            return {**value, "requests": self.rows(value["requests"])}
        if value["operation"] == "upsert" and value["request"]["model"] not in self._ids:
            return None
        return value  # or a number that is gone


#: Events that tell of no model: of the page itself, of numbers, or of logs that were chosen before.
_ABOUT_NOTHING = frozenset({"uiConfig", "lost", "activity", "logData"})
