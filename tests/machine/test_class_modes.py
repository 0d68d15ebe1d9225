"""Any python-statemachine class can be drawn, and most can be checked."""

from __future__ import annotations

import random
import re
from importlib.metadata import metadata
from textwrap import dedent
from typing import Any, cast

import pytest
from statemachine import Event, HistoryState, State, StateChart, StateMachine

from swapchart.machine import FORMATS, Compiled, Document, Notify, check, from_class, read, render
from swapchart.machine.interchange.draft import Loss

PICTURES = [name for name in FORMATS if name in ("mermaid", "dot", "table")]


def readme_classes() -> dict[str, type[StateChart[Any]]]:
    """Return the classes that the README of the installed python-statemachine defines."""
    text = metadata("python-statemachine").json["description"]
    blocks = re.findall(r"^```py\n(>>>.*?)^```", str(text), re.DOTALL | re.MULTILINE)
    scope: dict[str, Any] = {"__name__": "readme"}
    for block in blocks:
        lines = [line for line in block.splitlines() if line[:4] in (">>> ", "... ", "...")]
        statements = re.split(r"^>>> ", "\n".join(lines), flags=re.MULTILINE)
        for statement in statements:
            source = re.sub(r"^\.\.\. ?", "", statement, flags=re.MULTILINE)
            if source.startswith(("class ", "from ", "import ")):
                exec(dedent(source), scope)
    own = [value for value in scope.values() if getattr(value, "__module__", "") == "readme"]
    return {cls.__name__: cls for cls in own if issubclass(cls, StateChart)}


README = readme_classes()


@pytest.mark.parametrize("name", README)
def test_from_class_readme_example_is_drawn_in_each_format(name: str) -> None:
    """Every state and every callback that the class defines occurs in every picture."""
    cls = README[name]

    document = from_class(cls, mode="draw")

    for format_ in PICTURES:
        text = render(document, format_)
        assert all(state.id in text for state in cls.states_map.values()), format_
    own = {key for key in vars(cls) if key.startswith(("on_", "before_", "after_"))}
    assert own <= set(document.actions)


@pytest.mark.parametrize("name", README)
def test_from_class_readme_example_is_checked(name: str) -> None:
    """The checker explores the classes, and the text of the document reads back."""
    document = from_class(README[name], mode="check")

    assert read(render(document, "yaml")) == document
    assert check(document).states > 1


class Gate(StateChart[Any]):
    """Guards, callbacks of every sort and default flags."""

    idle = State("Waiting for a car", initial=True, value=1)
    opening = State(enter="ring", exit=["log_exit"])
    open_ = State("Open", value="wide")
    broken = State(final=True)

    coin = idle.to(opening, cond="has_paid", unless="is_locked") | idle.to(idle, on="return_coin")
    motor = opening.to(open_, validators="sensor_works")
    jam = opening.to(broken, cond="is_hopeless") | opening.to(idle)
    drive = open_.to(idle, on=lambda: None)
    wave = Event(open_.to(open_, internal=True, on="salute"), name="Wave")

    def has_paid(self, answers: dict[str, bool]) -> bool:
        return answers["has_paid"]

    def is_locked(self, answers: dict[str, bool]) -> bool:
        return answers["is_locked"]

    def is_hopeless(self, answers: dict[str, bool]) -> bool:
        return answers["is_hopeless"]

    def sensor_works(self, answers: dict[str, bool]) -> None:
        if not answers["sensor_works"]:
            raise ValueError("no sensor")

    def on_enter_idle(self) -> None:
        self.seen.append("on_enter_idle")

    def after_coin(self) -> None:
        self.seen.append("after_coin")

    def ring(self) -> None:
        self.seen.append("ring")

    def log_exit(self) -> None:
        self.seen.append("log_exit")

    def return_coin(self) -> None:
        self.seen.append("return_coin")

    def salute(self) -> None:
        self.seen.append("salute")

    def __init__(self) -> None:
        self.seen: list[str] = []
        super().__init__()


def test_from_class_in_check_mode_takes_the_steps_of_the_class() -> None:
    """In random stories, the class and the document reach the same states by the same callbacks.

    Each answer of a guard is a field of the event in the document.
    """
    document = from_class(Gate, mode="check")
    rng = random.Random(7)
    events = [name for name in document.events if "." not in name]
    for _ in range(60):
        machine, stepper = Gate(), Compiled(document).stepper()
        assert [e.name for e in stepper.begin() if isinstance(e, Notify)] == machine.seen
        for _ in range(12):
            event = rng.choice(events)
            answers = {name: rng.random() < 0.6 for name in document.guards}
            machine.seen.clear()
            try:
                machine.send(event, answers=answers)
            except ValueError:
                machine.seen.clear()
            fields = {
                field: answers[field.removesuffix("_holds")]
                for field in document.events[event].data
            }
            effects = stepper.step(event, fields)
            named = [e.name for e in effects if isinstance(e, Notify)]

            assert stepper.configuration == tuple(s.id for s in machine.configuration)
            assert [name for name in named if not name.startswith("lambda")] == machine.seen
            if stepper.is_final:
                break


class Eager(StateChart[Any]):
    """A guard on a transition without an event, which may hold after any event."""

    one = State(initial=True)
    two = State()
    three = State()
    go = one.to(two)
    stay = two.to(two)
    rest = three.to(one)
    two.to(three, cond="is_late")

    def is_late(self) -> bool:
        return False


def test_from_class_eventless_guard_is_free_at_each_step() -> None:
    """The guard may fail at first and hold later, without any other change."""
    document = from_class(Eager, mode="check")
    stepper = Compiled(document).stepper()
    stepper.begin()

    found = []
    for event, holds in (("go", False), ("stay", False), ("stay", True)):
        stepper.step(event, {"is_late_holds": holds})
        found.append(stepper.configuration)

    assert found == [("two",), ("two",), ("three",)]


class Wild(StateMachine):
    """Everything that has no place in a document."""

    class work(State.Compound):  # noqa: N801 (a state is what its attribute is called)
        doing = State("Busy doing", initial=True, invoke=lambda: 1)
        done = State(final=True)
        back = HistoryState()
        finish = doing.to(done, cond="ready and not late", on=print)

    asleep = State("Sleeping", value=7)
    late = Event(cast(Any, work).to(asleep), delay=50)
    hidden = Event(asleep.to(work.back), internal=True)
    again = cast(Any, work).to(work, internal=True)


@pytest.mark.parametrize("format_", PICTURES)
def test_from_class_with_code_everywhere_is_drawn(format_: str) -> None:
    """Lambdas, builtins, delays, invoked services, display names and default flags: all drawn."""
    lost: list[Loss] = []
    text = render(from_class(Wild, mode="draw", lost=lost), format_)

    for name in ("work", "doing", "asleep", "finish", "late", "hidden", "print"):
        assert name in text, name


def test_from_class_in_run_mode_takes_default_flags() -> None:
    """An event that no state takes is ignored by the class, and by the document."""

    class Plain(StateChart[Any]):
        red = State(initial=True)
        green = State()
        turn = red.to(green)
        back = green.to(red)

    document: Document = from_class(Plain)
    stepper = Compiled(document).stepper()
    stepper.begin()

    assert stepper.step("back") == []
    assert stepper.configuration == ("red",)
    stepper.step("turn")
    assert stepper.configuration == ("green",)
