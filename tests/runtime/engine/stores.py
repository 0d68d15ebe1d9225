"""Stores of tests: in memory, and failing where a test says."""

from __future__ import annotations

import json
from collections.abc import Callable

from swapchart.machine import Snapshot


class MemoryStore:
    """Keeps snapshots as JSON, in memory.

    Attributes:
        kept: Id -> JSON of the last snapshot.
        calls: Number of calls so far.
        fail: Gets the number and the name of each call, before it and after it; may raise.
        fail_next: Exception of the next call, which does nothing; None lets it pass.
    """

    def __init__(self) -> None:
        self.kept: dict[str, str] = {}
        self.calls = 0
        self.fail: Callable[[int, str, str], None] = lambda number, name, when: None
        self.fail_next: BaseException | None = None

    def _begin(self, name: str) -> None:
        self.calls += 1
        error, self.fail_next = self.fail_next, None
        if error is not None:
            raise error
        self.fail(self.calls, name, "before")

    def save(self, snapshot: Snapshot) -> None:
        self._begin("save")
        self.kept[snapshot.id] = json.dumps(snapshot.to_json())
        self.fail(self.calls, "save", "after")

    def load(self) -> list[Snapshot]:
        self._begin("load")
        return [Snapshot.from_json(json.loads(text)) for text in self.kept.values()]

    def has(self, name: str) -> bool:
        self._begin("has")
        return name in self.kept

    def forget(self, name: str) -> None:
        self._begin("forget")
        self.kept.pop(name, None)
        self.fail(self.calls, "forget", "after")
