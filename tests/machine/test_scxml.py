"""SCXML in and out: the same chart in python-statemachine, in SCION and read back."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from swapchart.machine import (
    ChartError,
    Compiled,
    Document,
    NotHandledError,
    from_mapping,
    from_scxml,
    lifecycle,
    to_scxml,
)
from swapchart.machine.effects import describe
from swapchart.machine.interchange.draft import Loss

from .charts import NAMES, chart

DATAMODELS = ("python", "ecmascript")


def without_document(text: str) -> str:
    """Return SCXML without the embedded document, as another tool would write it."""
    found = re.sub(r"\s*<document.*?</document>", "", text, flags=re.DOTALL)
    assert found != text
    return found


def story(document: Document, rng: random.Random, length: int) -> list[tuple[str, dict[str, Any]]]:
    """Return random events with random fields."""
    names = [name for name in document.events if "." not in name]
    return [
        (name, {key: rng.choice(values) for key, values in document.events[name].data.items()})
        for name in rng.choices(names, k=length)
    ]


def assert_same_steps(
    document: Document, again: Document, ordered: Callable[[Iterable[str]], list[str]]
) -> None:
    """Compare random stories of *document* and its copy *again*; *ordered* lists the effects."""
    rng = random.Random(3)
    compiled, copy = Compiled(document), Compiled(again)
    for _ in range(40):
        ours, theirs = compiled.stepper(), copy.stepper()
        assert list(map(describe, ours.begin())) == list(map(describe, theirs.begin()))
        for event, fields in story(document, rng, 12):
            known = again.events[event].data
            given = {key: value for key, value in fields.items() if key in known}
            try:
                expected = ordered(map(describe, ours.step(event, fields)))
            except NotHandledError:
                expected = []
            assert ordered(map(describe, theirs.step(event, given))) == expected
            assert theirs.configuration == ours.configuration
            assert theirs.context.values()[: len(document.data)] == ours.context.values()
            if ours.is_final:
                break


@pytest.mark.parametrize("datamodel", DATAMODELS)
@pytest.mark.parametrize("name", [*NAMES, "lifecycle"])
def test_from_scxml_of_an_export_returns_the_document(name: str, datamodel: str) -> None:
    """Writing and reading lose nothing, promises and names of guards included."""
    document = chart(name)

    assert from_scxml(to_scxml(document, datamodel=datamodel)) == document


@pytest.mark.parametrize("datamodel", DATAMODELS)
@pytest.mark.parametrize("name", NAMES)
def test_from_scxml_without_the_embedded_document_takes_the_same_steps(
    name: str, datamodel: str
) -> None:
    """The states, conditions, assignments and effects alone say what the chart does."""
    document = chart(name)
    seconds = {"escalation": 60.0} if name == "order" else None
    text = to_scxml(document, datamodel=datamodel, timers=seconds)
    again = from_scxml(without_document(text))
    assert_same_steps(document, again, list)


def test_from_scxml_with_changed_states_reads_the_states() -> None:
    """The embedded document is left out, and said to be, once it does not fit the rest."""
    text = to_scxml(chart("compound")).replace('event="', 'event="added ', 1)
    lost: list[Loss] = []

    document = from_scxml(text, lost=lost)

    assert "added" in document.events
    assert any("no longer fits" in loss.why for loss in lost)


TRAFFIC = """
<scxml xmlns="http://www.w3.org/2005/07/scxml" version="1.0" datamodel="ecmascript" initial="work">
  <datamodel><data id="n" expr="0"/><data id="on" expr="true"/><data id="list" expr="[1, 2]"/></datamodel>
  <parallel id="work">
    <state id="lights" initial="red">
      <state id="red">
        <onentry><send event="timeout" id="t1" delay="1.5s"/><log label="state" expr="'red'"/></onentry>
        <onexit><cancel sendid="t1"/></onexit>
        <transition event="timeout" cond="n &lt; 2 &amp;&amp; on === true" target="green">
          <if cond="n == 0"><assign location="n" expr="1"/><else/><assign location="n" expr="n + 1"/></if>
        </transition>
      </state>
      <state id="green"><transition event="button.*" cond="_event.data.force &gt;= 3" target="red"/></state>
      <history id="back"><transition target="green"/></history>
    </state>
    <state id="pump">
      <invoke id="filling" type="http://example.com/pump" src="pump.bin"/>
      <transition event="done.invoke.filling" target="pause"/>
      <state id="filling-up"/>
    </state>
  </parallel>
  <state id="pause"><transition event="resume" target="back"/><transition event="leave" target="end"/>
    <onentry><foreach array="list" item="x"><log expr="x"/></foreach></onentry></state>
  <final id="end"/>
</scxml>
"""  # noqa: E501


def test_from_scxml_translates_timers_conditions_and_invocations() -> None:
    """Each element becomes what a document has for it, with domains from the comparisons."""
    lost: list[Loss] = []
    document = from_scxml(TRAFFIC, lost=lost)

    said = {str(loss) for loss in lost}
    assert any("<foreach>" in line for line in said)
    assert any("datamodel.list" in line for line in said)
    assert any("renamed to filling_up" in line for line in said)
    assert document.events["timeout"].origin == "timer"
    assert document.events["done.invoke.filling"].of == "filling"
    assert document.data["on"].values == (False, True)
    stepper = Compiled(document).stepper()
    assert "timer.start t1" in map(describe, stepper.begin())
    effects = list(map(describe, stepper.step("timeout")))
    assert "timer.cancel t1" in effects
    assert stepper.context.values()[0] == 1
    stepper.step("resume")
    assert "green" in stepper.configuration


def test_from_scxml_that_loses_something_is_an_error_by_default() -> None:
    """The error lists all of it, and nothing that was only renamed."""
    with pytest.raises(ChartError) as caught:
        from_scxml(TRAFFIC)

    (notes,) = caught.value.__notes__
    assert "<foreach>" in notes
    assert "renamed" not in notes


BOMB = """<?xml version="1.0"?><!DOCTYPE scxml [<!ENTITY a "aaaaaaaaaa">
<!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">]><scxml name="&b;"/>"""
OUTSIDE = """<!DOCTYPE scxml [<!ENTITY x SYSTEM "file:///etc/passwd">]><scxml name="&x;"/>"""
STATE = '<scxml xmlns="http://www.w3.org/2005/07/scxml"><state id="a">{}</state></scxml>'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BOMB, "no document type declaration"),
        (OUTSIDE, "no document type declaration"),
        ("<scxml>", "not XML: no element found: line 1"),
        ("<svg/>", "expected <scxml> as the outermost element, got <svg>"),
        (STATE.format("<state>" * 99 + "</state>" * 99), "at most 64 levels"),
        (STATE.format('<transition event="e" target="b"/>'), "unknown state 'b'"),
        (STATE.format('<state id="a"/>'), "expected each id once"),
        ('<scxml xmlns="http://www.w3.org/2005/07/scxml"/>', "expected at least one state"),
        ("<scxml>" + "x" * (5 << 20) + "</scxml>", "at most 4 MiB"),
        (STATE.format('<transition event="e" cond="' + "(" * 400 + '"/>'), "guard"),
    ],
)
def test_from_scxml_hostile_or_wrong_text_is_refused(text: str, message: str) -> None:
    """Entities are never expanded and files never read; the message is short."""
    with pytest.raises(ChartError, match=re.escape(message)) as caught:
        from_scxml(text)

    assert len(str(caught.value)) < 1500


def test_to_scxml_sends_and_cancels_timers_of_known_duration() -> None:
    """Arming is cancel and send, so that a timer that runs begins anew."""
    text = to_scxml(chart("order"), timers={"escalation": 172_800})

    assert '<send event="overdue" id="escalation" delay="172800s" />' in text
    assert '<cancel sendid="escalation" />' in text
    assert '<invoke type="urn:swapchart:activity" id="charging.charge" src="charge" />' in text


def test_to_scxml_unknown_datamodel_is_refused() -> None:
    """The error lists the data models."""
    with pytest.raises(ChartError, match="expected python or ecmascript, got 'lua'"):
        to_scxml(lifecycle(), datamodel="lua")


def test_from_scxml_of_notes_returns_them() -> None:
    """What an action means for one instance is in the embedded document."""
    raw = {**chart("order").source, "notes": {"arm": "2 days"}}
    document = from_mapping(raw)

    assert from_scxml(to_scxml(document)).notes == {"arm": "2 days"}
