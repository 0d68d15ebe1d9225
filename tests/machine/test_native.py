"""Charts in python-statemachine's own dialect, in YAML and JSON, and detection of a form."""

from __future__ import annotations

import json
from typing import Any

import pytest
from statemachine.io import load

from swapchart.machine import (
    ChartError,
    Compiled,
    from_mapping,
    from_native,
    lifecycle,
    native_yaml,
    read,
    read_any,
    render,
)
from swapchart.machine.effects import describe
from swapchart.machine.interchange.draft import Loss

from .charts import NAMES, chart

OWN = """
name: Own
datamodel: {tries: "0", mode: "'fast'"}
states:
  idle:
    initial: true
    transitions:
      - {event: start, target: running, cond: tries < 3, "on": [{assign: {location: tries, expr: tries + 1}}]}
      - {event: start, target: idle, unless: allowed, before: complain}
  running:
    enter: [warm_up, {log: {label: state, expr: "'running'"}}]
    exit: [{raise: left}]
    transitions:
      - {event: stop, target: idle, after: tidy}
      - {event: done.invoke.job, target: idle}
    invoke: {id: job, type: http://example.com/job}
"""  # noqa: E501


@pytest.mark.parametrize("name", [*NAMES, "lifecycle"])
def test_from_native_of_an_export_with_its_catalog_returns_the_document(name: str) -> None:
    """The chart part and the other sections make the document again."""
    document = chart(name)
    catalog = {key: value for key, value in document.source.items() if key != "chart"}

    assert from_native(native_yaml(document), catalog) == document
    assert read_any(native_yaml(document), catalog) == document


def test_from_native_file_of_python_statemachine_becomes_a_document() -> None:
    """Assignments, conditions, callbacks, raised events and invoked services come through."""
    lost: list[Loss] = []
    document = from_native(OWN, lost=lost)
    stepper = Compiled(document).stepper()
    stepper.begin()

    effects = list(map(describe, stepper.step("start", {"allowed_holds": True})))

    assert effects == ["notify warm_up", "notify state 'running'", "activity.start job"]
    assert stepper.context.values()[0] == 1
    assert document.events["left"].origin == "chart"
    assert document.events["done.invoke.job"].of == "job"
    assert [str(loss) for loss in lost if not loss.is_harmless] == []


def test_from_native_takes_the_steps_of_python_statemachine() -> None:
    """The library's own loader runs the file to the same states and data."""

    class Model:
        state = None

        def allowed(self) -> bool:
            return True

        def complain(self) -> None: ...

        def warm_up(self) -> None: ...

        def tidy(self) -> None: ...

    theirs: Any = load(OWN.partition("    invoke:")[0], format="yaml")(Model())
    ours = Compiled(from_native(OWN)).stepper()
    ours.begin()
    for event in ("start", "start", "stop", "start", "stop", "start", "stop", "start", "stop"):
        theirs.send(event)
        ours.step(event, {"allowed_holds": True} if event == "start" else {})

        assert {state.id for state in theirs.configuration} == set(ours.configuration)
        assert theirs.model.tries == ours.context.values()[0]


def test_native_export_of_raised_events_runs_in_python_statemachine() -> None:
    """An action that raises an event is followed by it, as executable content."""
    raw = {
        "format": "swapchart.chart/v1",
        "events": {"go": {}, "next": {"origin": "chart"}},
        "actions": {"hurry": {"raise": "next"}},
        "chart": {
            "states": {
                "a": {"initial": True, "transitions": [{"event": "go", "target": "b"}]},
                "b": {
                    "enter": "hurry", "description": "not for long",
                    "transitions": [{"event": "next", "target": "c"}],
                },
                "c": {"final": True},
            }
        },
    }  # fmt: skip
    document = from_mapping(raw)
    text = native_yaml(document)

    class Model:
        state = None

        def hurry(self) -> None: ...

    machine: Any = load(text, format="yaml", validate=True)(Model())
    machine.send("go")

    assert {state.id for state in machine.configuration} == {"c"}
    catalog = {key: value for key, value in document.source.items() if key != "chart"}
    assert from_native(text, catalog).actions == document.actions


@pytest.mark.parametrize("format_", ["yaml", "json", "scxml", "xstate"])
def test_read_any_of_each_export_returns_the_document(format_: str) -> None:
    """The form is told by the content."""
    assert read_any(render(lifecycle(), format_)) == lifecycle()
    assert read(render(lifecycle(), "yaml")) == lifecycle()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "@startuml\na --> b\n@enduml",
            "PlantUML cannot be read; expected a chart document, SC",
        ),
        ("words " * 150, "found str of 900 characters"),
        ("[1, 2]", "found list of 6 characters"),
        (json.dumps({"states": {"a": {"unknown": 1}}}), "a.unknown: a document has no place"),
        ("<html><body/></html>", "expected <scxml> as the outermost element, got <html>"),
    ],
)
def test_read_any_of_something_else_says_what_is_expected(text: str, message: str) -> None:
    """The error names the forms, and does not repeat the text."""
    with pytest.raises(ChartError) as caught:
        read_any(text)

    assert message in str(caught.value)
    assert len(str(caught.value)) < 400
