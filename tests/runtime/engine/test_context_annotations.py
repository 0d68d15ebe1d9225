"""Activities that take an `ActivityContext`, however its annotation is written."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from typing import Any

import pytest

from swapchart.machine import ChartError
from swapchart.runtime import Actions, ActivityContext, Host
from swapchart.runtime.engine.actions import takes_context
from swapchart.runtime.engine.context_annotation import takes

from .backends import run_on, worker

HEAD = """
import functools, typing
from typing import TYPE_CHECKING, Annotated, Any, NewType, Optional, TypeVar, Union
import swapchart.runtime as engine
from swapchart.runtime import ActivityContext
Alias = ActivityContext
Typed = ActivityContext[dict[str, int]]
Maybe = Optional[ActivityContext[Any]]
Marked = Annotated[ActivityContext[Any], "mark"]
Bound = TypeVar("Bound", bound=ActivityContext[Any])
Own = NewType("Own", ActivityContext)
class Special(ActivityContext[int]): pass
if TYPE_CHECKING:
    from nowhere import Hidden
"""
FUTURE = "from __future__ import annotations\n"
CONTEXTS = [
    "ActivityContext", "ActivityContext[Any]", "Alias", "Alias[int]", "Typed", "Maybe", "Marked",
    "Bound", "Own", "Special", "engine.ActivityContext[int]", "'ActivityContext[Any]'", "'Typed'",
    "Optional[ActivityContext]", "ActivityContext[Any] | None", "Union[str, Typed]",
    "Annotated[Optional['Typed'], 1]", "Optional['Alias']",
]  # fmt: skip
OTHERS = ["str", "'str'", "Any", "object", "Optional[str]", "Annotated[str, 'ActivityContext']"]


def module(text: str, future: bool) -> dict[str, Any]:
    scope: dict[str, Any] = {"__name__": "a_program"}
    exec(compile((FUTURE if future else "") + HEAD + text, "<a program>", "exec", 0, True), scope)
    return scope


def function(annotation: str, future: bool) -> Any:
    return module(f"async def work(order: {annotation}) -> Typed: return 'done'", future)["work"]


@pytest.mark.parametrize("future", [False, True])
@pytest.mark.parametrize("annotation", [*CONTEXTS, *OTHERS])
def test_annotation_is_recognized_by_its_meaning(annotation: str, future: bool) -> None:
    """Aliases, unions, marks and texts count."""
    assert takes_context(function(annotation, future)) == (annotation in CONTEXTS)


FORMS = """
async def work(order: Typed) -> str: return "done"
async def fee(fee: int, order: Typed) -> str: return "done"
async def named(order: Typed, *, fee: int) -> str: return "done"
async def several(*orders: Typed) -> str: return "done"
class Shop:
    async def method(self, order: Typed) -> str: return "done"
    async def __call__(self, order: Typed) -> str: return "done"
    @classmethod
    async def of_class(cls, order: Typed) -> str: return "done"
    @staticmethod
    async def static(order: Typed) -> str: return "done"
def logged(function):
    @functools.wraps(function)
    async def wrapper(*arguments, **options): return await function(*arguments, **options)
    return wrapper
def closure():
    Local = ActivityContext[int]
    async def inner(order: Local) -> str: return str(Local)
    return inner
forms = {
    "function": work, "partial": functools.partial(fee, 1),
    "named": functools.partial(named, fee=1), "twice": functools.partial(functools.partial(fee, 1)),
    "several": several, "method": Shop().method, "object": Shop(),
    "classmethod": Shop.of_class, "static": Shop.static,
    "partial of a method": functools.partial(Shop.method, Shop()),
    "partial of an object": functools.partial(Shop()),
    "decorated": logged(work), "decorated method": logged(Shop().method), "closure": closure(),
}
"""


@pytest.mark.parametrize(
    ("future", "name"), [*itertools.product([False, True], module(FORMS, False)["forms"])]
)
def test_callable_of_any_form_is_recognized(future: bool, name: str) -> None:
    """The first parameter that is still free counts."""
    form = module(FORMS, future)["forms"][name]

    assert takes_context(form)


def test_parameters_that_are_bound_or_follow_do_not_count() -> None:
    """Nor does what the function returns."""

    async def bound(order: ActivityContext[Any], point: str) -> ActivityContext[Any]:
        return order

    async def later(point: str, order: ActivityContext[Any] | None = None) -> str:
        return point

    async def untyped(point):  # type: ignore[no-untyped-def]
        return point

    none: Any = None
    found: list[Any] = [functools.partial(bound, none), later, untyped, lambda point: point]
    assert not any(takes_context(one) for one in found)


def test_name_that_only_type_checkers_import_is_known_by_its_text() -> None:
    """`ActivityContext` itself needs no import at run time."""
    work = function("ActivityContext[Hidden]", True)
    assert takes_context(work)
    del work.__globals__["ActivityContext"]
    assert takes_context(work)


def test_signature_of_an_activity_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Checks and runs of any number of instances share it; another function is read anew."""
    read: list[Any] = []

    def noted(function: Any, kind: type) -> bool:
        read.append(function)
        return takes(function, kind)

    monkeypatch.setattr("swapchart.runtime.engine.actions.takes", noted)
    first, second = function("ActivityContext", False), function("str", False)
    activities = {"work": first}
    actions = Actions(activities=activities, timers={"limit": 9})

    for _ in range(3):
        actions.check(worker())
        assert actions.function("work") == (first, True)
    activities["work"] = second

    assert actions.function("work") == actions.function("work") == (second, False)
    assert read == [first, second]


@pytest.mark.parametrize("annotation", ["Hidden", "Optional[Hidden]", "Typed["])
def test_annotation_that_cannot_be_resolved_is_an_error(annotation: str) -> None:
    """When the actions are checked, with activity, parameter, annotation and cure."""
    work = module(f"async def work(order: {annotation!r}): return 'done'", False)["work"]

    async def main() -> None:
        async with Host() as host:
            with pytest.raises(ChartError) as caught:
                host.start(
                    worker(), actions=Actions(activities={"work": work}, timers={"limit": 9})
                )
            text = str(caught.value)
            for part in ("activities.work", "'order'", repr(annotation), "ActivityContext"):
                assert part in text
            assert len(host) == 0

    run_on("asyncio", main)


@pytest.mark.parametrize(
    "work",
    [lambda: None, lambda one, two: None, lambda *, point: None],
)
def test_function_that_takes_no_single_argument_is_an_error(work: Callable[..., Any]) -> None:
    """It would fail when the activity starts."""
    actions = Actions(activities={"work": work}, timers={"limit": 9})
    with pytest.raises(ChartError, match=r"activities\.work: expected a function of one argument"):
        actions.check(worker())
