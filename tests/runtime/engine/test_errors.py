"""Errors of charts and hosts: each can be copied and sent to another process."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator

import pytest

import swapchart.adapters.store  # its errors are looked at below
import swapchart.runtime
from swapchart.adapters.proxy.models.resolver import UnknownModelError
from swapchart.machine import (
    ChartError,
    EventError,
    EventlessLoopError,
    NotHandledError,
    SnapshotError,
    StepError,
)
from swapchart.machine.errors import SwapchartError
from swapchart.runtime import ActivityError, EndedError
from swapchart.runtime.engine import StoreFailedError

ERRORS = [
    ChartError("a", "b", position=(1, 2), file="f", problems=(ChartError("c", "d"),)),
    EventlessLoopError(("a",), "b", ("c",), "d"),
    NotHandledError("a", ("b",)),
    EventError("a", "b"),
    StepError("a", ("b",), "c"),
    StoreFailedError("a", ("b",), "c"),
    SnapshotError("a", "b"),
    EndedError("a", ("b",), "c"),
    ActivityError("a", "b"),
]


def kinds(kind: type[SwapchartError] = SwapchartError) -> Iterator[type[SwapchartError]]:
    yield kind
    for below in kind.__subclasses__():
        yield from kinds(below)


def assert_same(found: SwapchartError, error: SwapchartError) -> None:
    assert type(found) is type(error)
    assert str(found) == str(error)
    assert repr(attributes(found)) == repr(attributes(error))


def attributes(error: SwapchartError) -> dict[str, object]:
    """Return the attributes of an error; one of a compiled class has no ``__dict__`` at first."""
    return getattr(error, "__dict__", {})


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_error_is_the_same_after_pickle_and_copy(error: SwapchartError) -> None:
    assert_same(pickle.loads(pickle.dumps(error)), error)
    assert_same(copy.copy(error), error)
    assert_same(copy.deepcopy(error), error)


def test_error_of_every_class_can_be_pickled() -> None:
    """Whatever its class is called with."""
    found = [kind for kind in kinds() if kind is not EventlessLoopError]  # by its arguments
    assert len(found) > 20
    assert swapchart.adapters.store.StoreError in found
    assert swapchart.runtime.RequestError in found
    assert UnknownModelError in found  # a class that is compiled
    for kind in found:
        error = kind.__new__(kind, "text")
        error.args = ("text",)
        again = pickle.loads(pickle.dumps(error))
        assert (type(again), again.args, attributes(again)) == (kind, ("text",), {})
        error.add_note("there")
        again = pickle.loads(pickle.dumps(error))
        assert (type(again), again.args, attributes(again)["__notes__"]) == (
            kind,
            ("text",),
            ["there"],
        )
