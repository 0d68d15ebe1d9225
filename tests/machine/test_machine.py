"""Machine: what is compiled once, validation of events, steps that are taken or not."""

from __future__ import annotations

import copy
import pickle
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swapchart.machine import (
    Document,
    EventError,
    EventlessLoopError,
    Machine,
    NotHandledError,
    Notify,
    StepError,
    TableStepper,
    check,
    from_mapping,
    lifecycle,
    read,
)
from swapchart.machine.checking.explore import behavior
from swapchart.machine.document import Value

from .charts import FOLDER, NAMES, chart

KETTLE = """
format: swapchart.chart/v1
name: Kettle
data: {n: {initial: 0}, level: {initial: 0, values: [0, 1, 2]}}
parameters: {most: {initial: 3, values: [1, 2, 3]}}
events:
  go: {data: {size: [1, 2]}}
  back: {}
  noop: {}
  fill: {data: {by: [0, 1, 2, 3]}}
guards: {fits: level + by <= most}
actions:
  ring: {do: {effect: notify, name: RING}}
  add: {set: {n: n + size}}
  pour: {set: {level: level + by}}
chart:
  states:
    idle:
      initial: true
      transitions:
        - {event: go, target: busy, "on": [ring, add]}
        - {event: noop}
        - {event: fill, cond: fits, "on": [ring, pour]}
    busy: {transitions: [{event: back, target: idle}]}
"""


def regions(count: int, size: int) -> Document:
    """Make a chart of *count* parallel regions, each a ring of *size* states."""
    return from_mapping(
        {
            "format": "swapchart.chart/v1",
            "name": "Regions",
            "events": {f"e{r}": {} for r in range(count)},
            "chart": {
                "states": {
                    "p": {
                        "initial": True,
                        "parallel": True,
                        "states": {
                            f"r{r}": {
                                "states": {
                                    f"r{r}_s{i}": {
                                        "initial": i == 0,
                                        "transitions": [
                                            {
                                                "event": f"e{r}",
                                                "target": f"r{r}_s{(i + 1) % size}",
                                            }
                                        ],
                                    }
                                    for i in range(size)
                                }
                            }
                            for r in range(count)
                        },
                    }
                }
            },
        }
    )


def loop(data: dict[str, Any], guards: dict[str, str], actions: dict[str, Any] | None = None,
         on: list[str] | None = None) -> Document:  # fmt: skip
    """Make a chart with two eventless transitions, guarded by ``there`` and ``back``."""
    states = {
        "a": {"initial": True, "transitions": [{"event": "go", "target": "b"}]},
        "b": {"transitions": [{"target": "c", "cond": "there", "on": on or []}]},
        "c": {"transitions": [{"target": "b", "cond": "back"}, {"event": "go", "target": "a"}]},
    }
    return from_mapping(
        {
            "format": "swapchart.chart/v1",
            "name": "Loop",
            "data": data,
            "events": {"go": {}},
            "guards": guards,
            "actions": actions or {},
            "chart": {"states": states},
        }
    )


# ---- configurations
def test_configuration_after_any_way_is_in_document_order() -> None:
    """The same states are the same configuration, whatever way led there."""
    stepper = Machine(regions(2, 3)).stepper()
    before = stepper.configuration
    for _ in range(3):
        stepper.step("e0")

    assert stepper.configuration == before == ("p", "r0", "r0_s0", "r1", "r1_s0")


@pytest.mark.parametrize(("count", "rows"), [(1, 3), (2, 9), (4, 81)])
def test_table_of_regions_has_a_row_for_each_configuration(count: int, rows: int) -> None:
    """No configuration has two rows; each is in document order, and the checker counts the same."""
    document = regions(count, 3)
    table = Machine(document).table
    assert table is not None
    order = [name for name, _, _ in document.states()]

    assert len(table.rows) == rows
    assert all(list(c) == sorted(c, key=order.index) for c in table.rows)
    assert check(document).configurations == rows


@pytest.mark.measures
def test_table_of_six_regions_is_compiled_in_time() -> None:
    """6 regions of 3 states have 729 rows, compiled in half a second (bound: five times that)."""
    began = time.process_time()
    table = Machine(regions(6, 3)).table
    assert table is not None

    assert len(table.rows) == 729
    assert time.process_time() - began < 2.5


@pytest.mark.parametrize("name", ["order", "history_deep", "history_shallow"])
def test_table_of_history_agrees_with_the_library_everywhere(name: str) -> None:
    """A chart with history has a table, and it does what python-statemachine does."""
    assert isinstance(Machine(chart(name)).stepper(), TableStepper)

    assert behavior(chart(name)) == behavior(chart(name), reference=True)


# ---- eventless cycles
def test_loop_of_eventless_transitions_is_refused_with_its_states() -> None:
    """Guards that are always true lead round for ever: an error at once, with the way there."""
    document = read((FOLDER / "refused" / "loop.yaml").read_text("utf-8"))
    with pytest.raises(EventlessLoopError, match=r"b, c after 'go' in a") as caught:
        Machine(document)

    assert caught.value.states == ("b", "c")
    assert pickle.loads(pickle.dumps(caught.value)).states == ("b", "c")


@pytest.mark.measures
def test_loop_of_eventless_transitions_is_refused_in_time() -> None:
    """A refusal takes less than 0.1 s (bound: five times that)."""
    document = read((FOLDER / "refused" / "loop.yaml").read_text("utf-8"))
    began = time.process_time()
    with pytest.raises(EventlessLoopError):
        Machine(document)

    assert time.process_time() - began < 0.5


def test_check_of_a_loop_reports_the_way_that_leads_there() -> None:
    """The checker does not hang: it has a finding with the states and the shortest trace."""
    (finding,) = check(read((FOLDER / "refused" / "loop.yaml").read_text("utf-8"))).findings

    assert (finding.kind, finding.sentence) == (
        "eventless transitions that go round for ever", "b, c",
    )  # fmt: skip
    assert [move.event for move in finding.trace] == ["begin", "go"]


def test_check_of_a_loop_at_the_start_reports_it() -> None:
    """A chart that never becomes stable has a finding too."""
    document = from_mapping(
        {
            "format": "swapchart.chart/v1",
            "guards": {"yes": "1 == 1"},
            "chart": {
                "states": {
                    "a": {"initial": True, "transitions": [{"target": "b", "cond": "yes"}]},
                    "b": {"transitions": [{"target": "a", "cond": "yes"}]},
                }
            },
        }
    )
    with pytest.raises(EventlessLoopError, match="at the start"):
        Machine(document)

    assert [finding.sentence for finding in check(document).findings] == ["a, b"]


def test_loop_whose_guards_exclude_each_other_is_accepted() -> None:
    """Two guards that are never true together make no loop."""
    data = {"n": {"initial": 1, "values": [0, 1, 2]}}
    document = loop(data, {"there": "n > 0", "back": "n <= 0"})

    stepper = Machine(document).stepper()
    stepper.step("go")
    assert stepper.configuration == ("c",)
    assert check(document, parameters=[{}]).is_ok


def test_loop_that_some_value_allows_is_refused_with_the_value() -> None:
    """The error names values of the declared domain for which the chart goes round."""
    data = {"n": {"initial": 0, "values": [0, 1, 2]}}

    with pytest.raises(EventlessLoopError, match="when n is 2"):
        Machine(loop(data, {"there": "n > 0", "back": "n == 2"}))


def test_loop_that_counts_ends_by_its_guard() -> None:
    """A cycle that its own action ends is legal; it has no table and takes several rounds."""
    document = loop({"n": {"initial": 0}}, {"there": "n < 5", "back": "n < 5"},
                    {"add": {"set": {"n": "n + 1"}}}, ["add"])  # fmt: skip
    machine = Machine(document)
    stepper = machine.traced_stepper()
    machine.step(stepper, "go", {})

    assert machine.table is None
    assert stepper.context.values() == (5,)
    assert stepper.configuration == ("c",)


def test_loop_that_counts_without_end_is_undone() -> None:
    """After a thousand microsteps the step fails, and everything is as before."""
    document = loop({"n": {"initial": 0}}, {"there": "n >= 0", "back": "n >= 0"},
                    {"add": {"set": {"n": "n + 1"}}}, ["add"])  # fmt: skip
    machine = Machine(document)
    stepper = machine.traced_stepper()

    with pytest.raises(StepError, match="go round for ever"):
        machine.step(stepper, "go", {})
    assert (stepper.configuration, stepper.context.values()) == (("a",), (0,))


def test_loop_of_done_events_is_refused() -> None:
    """A state that ends as soon as it is entered, and is entered when it ends, is a loop too."""
    document = from_mapping(
        {
            "format": "swapchart.chart/v1",
            "events": {"go": {}},
            "chart": {
                "states": {
                    "a": {"initial": True, "transitions": [{"event": "go", "target": "box"}]},
                    "box": {
                        "transitions": [{"event": "done.state.box", "target": "box"}],
                        "states": {
                            "first": {"initial": True, "transitions": [{"target": "end"}]},
                            "end": {"final": True},
                        },
                    },
                }
            },
        }
    )

    with pytest.raises(EventlessLoopError, match="first"):
        Machine(document)


# ---- events
@pytest.mark.parametrize(
    ("event", "fields", "why"),
    [
        ("boil", {}, "declares no such event; known: go, back, noop, fill"),
        ("go", {"sise": 1}, "has no field 'sise'; known: size"),
        ("go", {"n": 77, "size": 1}, "has no field 'n'"),
        ("go", {"most": 9}, "has no field 'most'"),
        ("go", {"out": [], "state": "busy"}, "has no field 'out'"),
        ("go", {"by": 1}, "has no field 'by'"),
        ("go", {"size": 99999}, "expected field 'size' to be one of 1, 2; got 99999"),
        ("go", {"size": "1"}, "got '1'"),
        ("go", {"size": True}, "got True"),
        ("go", {"size": 1.0}, "got 1.0"),
        ("go", {"size": None}, "got None"),
    ],
)  # fmt: skip
def test_fields_that_are_not_declared_are_refused(event: str, fields: Any, why: str) -> None:
    """Unknown events and fields, wrong types and values outside the domain are errors."""
    with pytest.raises(EventError, match=why):
        Machine(read(KETTLE)).fields(event, fields)


def test_fields_not_given_have_the_first_value_of_their_domain() -> None:
    """A field that is left out has its default, not the value of an earlier event."""
    machine = Machine(read(KETTLE))

    assert machine.fields("go") == {"size": 1}
    assert machine.fields("go", {"size": 2}) == {"size": 2}


@pytest.mark.parametrize("kind", ["stepper", "reference"])
def test_field_of_an_event_does_not_outlive_it(kind: str) -> None:
    """The second `go` has no field, and reads the default."""
    stepper = getattr(Machine(read(KETTLE)), kind)()
    stepper.step("go", {"size": 2})
    stepper.step("back")
    stepper.step("go")

    assert stepper.context.values()[0] == 3


@pytest.mark.parametrize("kind", ["stepper", "reference"])
def test_stepper_given_the_name_of_a_datum_as_field_refuses_it(kind: str) -> None:
    """Even below the machine, fields reach no other variable."""
    stepper = getattr(Machine(read(KETTLE)), kind)()

    with pytest.raises(EventError):
        stepper.step("go", {"n": 77})
    assert stepper.context.values() == (0, 0)


# ---- all or nothing
@pytest.mark.parametrize("kind", ["stepper", "reference"])
def test_effects_of_a_failed_step_do_not_leak(kind: str) -> None:
    """An assignment that fails takes the effects before it along."""
    stepper = getattr(Machine(read(KETTLE)), kind)()
    with pytest.raises(TypeError):
        stepper.step("go", {"size": "x"})

    assert stepper.step("noop") == []
    assert (stepper.configuration, stepper.context.values()) == (("idle",), (0, 0))
    assert stepper.step("go") == [Notify("RING")]


def test_datum_outside_its_domain_undoes_the_step() -> None:
    """What the checker would find is refused while it runs, too."""
    machine = Machine(read(KETTLE))
    stepper = machine.traced_stepper()
    with pytest.raises(StepError, match="level is 3, expected one of 0, 1, 2"):
        machine.step(stepper, "fill", {"by": 3})

    assert (stepper.configuration, stepper.context.values()) == (("idle",), (0, 0))
    assert machine.step(stepper, "fill", {"by": 2}).actions == ("ring", "pour")


@given(
    story=st.lists(st.tuples(st.integers(0, 10**6), st.booleans()), max_size=20),
    name=st.sampled_from([*NAMES, "lifecycle"]),
    at=st.integers(0, 6),
)
@settings(max_examples=150, deadline=None)
def test_step_that_fails_anywhere_leaves_no_trace(
    story: list[tuple[int, bool]], name: str, at: int
) -> None:
    """Whatever action or guard fails, the instance goes on as one whose steps never failed."""
    machine = Machine(chart(name))
    stepper, oracle = machine.traced_stepper(), machine.traced_stepper()
    machine.begin(stepper)
    machine.begin(oracle)
    for seed, fails in story:
        if oracle.is_final:
            break
        event, fields = random_event(machine.document, random.Random(seed))
        if fails:
            before = seen(stepper)
            real = stepper.context
            stepper.context = Failing(real, at)
            try:
                machine.step(stepper, event, fields)
                raise (
                    AssertionError("unreachable") if stepper.context.has_failed else CompletedError
                )
            except (StepError, NotHandledError):
                assert seen(stepper) == before
            except CompletedError:
                stepper.restore(*before)
            finally:
                stepper.context = real
        assert outcome(machine, stepper, event, fields) == outcome(machine, oracle, event, fields)


class CompletedError(Exception):
    """The step did not reach the call that would have failed."""


class Failing:
    """A context whose n-th guard or action raises."""

    def __init__(self, real: Any, at: int) -> None:
        self.__dict__.update(_real=real, _left=at, has_failed=False)

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._real, name)
        document = self._real.chart_document
        if name in document.guards or name in document.actions:
            self.__dict__["_left"] -= 1
            if self._left < 0:
                self.__dict__["has_failed"] = True
                raise RuntimeError("injected")
        return found

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._real, name, value)


def seen(stepper: Any) -> tuple[Any, ...]:
    return stepper.configuration, stepper.context.values(), stepper.memory


def outcome(machine: Machine, stepper: Any, event: str, fields: dict[str, Value]) -> Any:
    try:
        done: Any = machine.step(stepper, event, fields)
    except NotHandledError as error:
        done = str(error)
    return done, seen(stepper), stepper.context.out


def random_event(document: Document, rng: random.Random) -> tuple[str, dict[str, Value]]:
    event = rng.choice(list(document.events))
    fields = document.events[event].data
    return event, {name: rng.choice(domain) for name, domain in fields.items()}


@given(seed=st.integers(0, 10**6), name=st.sampled_from([*NAMES, "lifecycle"]))
@settings(max_examples=60, deadline=None)
def test_can_says_whether_a_step_is_handled_and_changes_nothing(seed: int, name: str) -> None:
    """`can` and `step` agree, for the table and for python-statemachine."""
    machine, rng = Machine(chart(name)), random.Random(seed)
    steppers = [machine.stepper(), machine.reference()]
    for stepper in steppers:
        stepper.begin()
    for _ in range(20):
        event, fields = random_event(machine.document, rng)
        for stepper in steppers:
            if stepper.is_final:
                return
            before = seen(stepper)
            can = stepper.can(event, fields)
            assert seen(stepper) == before
            try:
                stepper.step(event, fields)
            except NotHandledError:
                assert not can
            else:
                assert can


# ---- copies
def test_machine_and_steppers_can_be_pickled_and_copied() -> None:
    """A stepper comes back with its configuration, data and history; a machine stays shared."""
    machine = Machine(chart("order"))
    for stepper in (machine.stepper(needed=2), machine.traced_stepper(needed=2),
                    machine.reference(needed=2)):  # fmt: skip
        stepper.begin()
        for event in ("submit", "approve", "hold"):
            stepper.step(event, {"value": 5000} if event == "submit" else {})
        for again in (pickle.loads(pickle.dumps(stepper)), copy.deepcopy(stepper)):
            assert seen(again) == seen(stepper)
            assert again.context.parameters() == {"needed": 2}
            assert again.memory
            again.step("resume")
            assert again.configuration == ("open", "waiting")

    assert pickle.loads(pickle.dumps(machine)) == machine
    assert copy.deepcopy(machine) is machine
    assert len({machine, Machine(chart("order"))}) == 1


def test_document_can_be_a_key() -> None:
    """Equal documents have the same hash."""
    again = read(KETTLE)

    assert len({read(KETTLE), again}) == 1
    assert len({read(KETTLE), lifecycle()}) == 2


def test_machine_of_an_equal_document_is_compiled_once() -> None:
    """What is compiled is kept by the digest, which another process computes likewise."""
    first, second = Machine(read(KETTLE)), Machine(read(KETTLE))

    assert first.table is second.table
    assert first.context_class is second.context_class
    program = (
        "import sys; from swapchart.machine import Machine, read;"
        "print(Machine(read(sys.stdin.read())).digest)"
    )
    told = subprocess.run(
        [sys.executable, "-c", program], input=KETTLE, capture_output=True, text=True, check=True,
        timeout=60,
    )  # fmt: skip
    assert told.stdout.strip() == first.digest
    changed = read(KETTLE.replace("n + size", "n + size + 1"))
    assert Machine(changed).digest != first.digest


def test_machine_of_a_pickled_shipped_chart_needs_no_compiling() -> None:
    """A copy of the shipped chart has the table that ships."""
    again = pickle.loads(pickle.dumps(lifecycle()))

    assert Machine(again).table is Machine(lifecycle()).table


def test_engine_parts_of_the_library_exist() -> None:
    """The library's private parts that microsteps are taken with are still there."""
    machine = Machine(chart("parallel")).reference()._machine
    engine = machine._engine

    for name in (
        "_initial_transitions", "_enter_states", "_take_external_event", "_check_root_final_state",
        "select_eventless_transitions", "select_transitions", "microstep", "internal_queue",
        "clear_cache", "is_in_final_state", "running", "_processing",
    ):  # fmt: skip
        assert hasattr(engine, name), name
    assert Path(sys.modules[type(engine).__module__].__file__ or "").name == "sync.py"
