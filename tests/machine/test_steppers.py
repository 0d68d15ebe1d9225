"""Two interpreters, one meaning: python-statemachine itself, and the table recorded from it."""

from __future__ import annotations

import os
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swapchart.machine import (
    ChartError,
    Compiled,
    Document,
    HistoryTableStepper,
    NotHandledError,
    Stepper,
    TableStepper,
    check,
    from_mapping,
    lifecycle,
)
from swapchart.machine.checking.explore import Bounds, behavior, parameter_sets
from swapchart.machine.document import Value
from swapchart.machine.format.parse import from_trusted

from .charts import NAMES, chart

COMPILED = {name: Compiled(chart(name)) for name in [*NAMES, "lifecycle"]}
#: Compared in random order; the exhaustive comparison below adds some 27,000.
STEPS = 33_000 if os.environ.get("SWAPCHART_LONG") == "1" else 11_000
SETS = list(parameter_sets(lifecycle(), Bounds(counts=3)))


def chart_with(transition: dict[str, object], **sections: object) -> Document:
    """Make a chart of two states around *transition*."""
    return from_mapping(
        {
            "format": "swapchart.chart/v1",
            "events": {"go": {}, "back": {}},
            **sections,
            "chart": {
                "states": {
                    "one": {"initial": True, "transitions": [transition]},
                    "two": {"transitions": [{"event": "back", "target": "one"}]},
                }
            },
        }
    )


def outcome(stepper: Stepper, event: str, data: dict[str, Value]) -> object:
    """Step and return everything that can be seen of it."""
    try:
        effects: object = stepper.step(event, data)
    except NotHandledError as error:
        effects = (error.event, error.configuration)
    return effects, stepper.configuration, stepper.context.values(), stepper.is_final


def random_input(document: Document, rng: random.Random) -> tuple[str, dict[str, Value]]:
    event = rng.choice(list(document.events))
    fields = document.events[event].data
    return event, {name: rng.choice(domain) for name, domain in fields.items()}


def walk(name: str, parameters: dict[str, Value], seed: int, steps: int) -> int:
    """Step both interpreters side by side; return how many steps were compared."""
    compiled, rng = COMPILED[name], random.Random(seed)
    table, real = compiled.stepper(**parameters), compiled.reference(**parameters)
    assert isinstance(table, TableStepper)
    assert compiled.table is not None
    assert table.begin() == real.begin()
    for step in range(steps):
        if table.is_final:
            return step
        event, data = random_input(compiled.document, rng)
        while event not in compiled.table.rows[table.configuration] and rng.random() < 0.9:
            event, data = random_input(compiled.document, rng)
        assert outcome(table, event, data) == outcome(real, event, data)
    return steps


@pytest.mark.parametrize("parameters", SETS[::7], ids=lambda p: "-".join(map(str, p.values())))
def test_table_and_chart_agree_on_long_random_walks(parameters: dict[str, Value]) -> None:
    """On random events, sensible or not, both take the same steps with the same effects."""
    compared = seed = 0
    while compared < STEPS / len(SETS[::7]):
        compared += walk("lifecycle", parameters, seed, 500)
        seed += 1


@pytest.mark.parametrize("parameters", [SETS[0], SETS[-1]], ids=["first", "last"])
def test_table_and_chart_agree_everywhere(parameters: dict[str, Value]) -> None:
    """In every snapshot that our chart can be in, every input has the same outcome in both."""
    ours = behavior(lifecycle(), parameters=parameters, counts=1)

    assert behavior(lifecycle(), parameters=parameters, counts=1, reference=True) == ours
    assert sum(map(len, ours.reactions.values())) > 13_000


@pytest.mark.parametrize("name", NAMES)
def test_charts_with_a_table_agree_with_it_everywhere(name: str) -> None:
    """Small charts are compared in every snapshot, on every event, in every set of parameters."""
    document = chart(name)
    for parameters in parameter_sets(document, Bounds()):
        ours = behavior(document, parameters=parameters)

        assert ours == behavior(document, parameters=parameters, reference=True)


def test_chart_with_history_has_a_table() -> None:
    """Trees note what is remembered and branch where it is recalled, so no row depends on it."""
    table = COMPILED["history_deep"].table
    assert table is not None
    assert table.has_memory
    assert isinstance(COMPILED["history_deep"].stepper(), HistoryTableStepper)


def test_history_is_part_of_a_snapshot() -> None:
    """A restored chart goes back to where it was left before it was stored, not to the default."""
    stepper = COMPILED["history_deep"].stepper()
    for event in ("next", "deeper", "pause"):
        stepper.step(event)
    stored = stepper.configuration, stepper.context.values(), stepper.memory

    other = COMPILED["history_deep"].stepper()
    other.restore(*stored)
    other.step("resume")

    assert other.configuration == ("work", "nested", "lower")


@pytest.mark.parametrize("name", [*NAMES, "lifecycle"])
@given(seed=st.integers(0, 10**6), cut=st.integers(0, 30))
@settings(max_examples=15, deadline=None)
def test_restored_snapshot_continues_identically(name: str, seed: int, cut: int) -> None:
    """Configuration, data and memory are all there is: a copy made of them does the same."""
    compiled, rng = COMPILED[name], random.Random(seed)
    stepper = compiled.stepper()
    stepper.begin()
    inputs = [random_input(compiled.document, rng) for _ in range(cut + 20)]
    for event, data in inputs[:cut]:
        if not stepper.is_final:
            outcome(stepper, event, data)
    copy = compiled.stepper()
    copy.restore(stepper.configuration, stepper.context.values(), stepper.memory)
    for event, data in inputs[cut:]:
        if stepper.is_final:
            assert copy.is_final
            break
        assert outcome(copy, event, data) == outcome(stepper, event, data)


@pytest.mark.parametrize("kind", ["stepper", "reference"])
def test_unhandled_event_changes_nothing(kind: str) -> None:
    """Not handled means not begun: state, data and effects are as before, and it says where."""
    stepper: Stepper = getattr(COMPILED["lifecycle"], kind)()
    stepper.begin()
    before = stepper.configuration, stepper.context.values()

    with pytest.raises(NotHandledError, match=r"no transition takes 'healthy' in alive\.stopped"):
        stepper.step("healthy")

    assert (stepper.configuration, stepper.context.values()) == before
    assert stepper.step("request")[0] is not None


@pytest.mark.parametrize("kind", ["stepper", "reference"])
def test_event_refused_by_its_guard_is_unhandled(kind: str) -> None:
    """Where every guard says no, the table says so as the class does."""
    raw = chart_with({"event": "go", "target": "two", "cond": "never"}, guards={"never": "1 == 2"})
    stepper: Stepper = getattr(Compiled(raw), kind)()

    with pytest.raises(NotHandledError):
        stepper.step("go")

    assert stepper.configuration == ("one",)


def test_unknown_parameter_is_refused() -> None:
    """A misspelt parameter is an error of its author, not a default."""
    with pytest.raises(ChartError, match=r"parameters\.intensty: the chart has no such parameter"):
        COMPILED["lifecycle"].stepper(intensty=3)


def test_structure_refused_by_the_library_is_a_chart_error() -> None:
    """A final state that can be left is refused by python-statemachine, and the error is ours."""
    known = chart_with({"event": "go", "target": "two"}).source
    go = {"event": "go", "target": "two"}
    ended = {"final": True, "transitions": [{"event": "go", "target": "one"}]}
    chart = {"states": {"one": {"initial": True, "transitions": [go]}, "two": ended}}
    unchecked = from_trusted({**known, "chart": chart})

    with pytest.raises(ChartError, match=r"chart: .*two"):
        Compiled(unchecked)


def test_chart_that_ends_at_once_is_final() -> None:
    """A chart may be at its end before the first event."""
    document = from_mapping(
        {
            "format": "swapchart.chart/v1",
            "chart": {
                "states": {
                    "start": {"initial": True, "transitions": [{"target": "end"}]},
                    "end": {"final": True},
                }
            },
        }
    )

    assert Compiled(document).stepper().is_final
    assert Compiled(document).reference().is_final
    assert check(document).is_ok


def test_exploration_has_a_limit() -> None:
    """What would take for ever is an error instead."""
    with pytest.raises(ChartError, match="more than 10 snapshots can be reached"):
        behavior(lifecycle(), most=10)
