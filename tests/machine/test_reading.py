"""Reading documents: what is wrong is said with its path and with what was expected."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import yaml

from swapchart.machine import (
    ChartError,
    Document,
    from_mapping,
    from_native,
    from_scxml,
    from_xstate,
    lifecycle,
    read,
    read_any,
)

GOOD: dict[str, Any] = {
    "format": "swapchart.chart/v1",
    "name": "Small",
    "data": {"n": {"initial": 0}, "mode": {"values": ["a", "b"]}},
    "parameters": {"limit": {"initial": 2}},
    "events": {
        "go": {"data": {"hard": [False, True]}},
        "ring": {"origin": "timer", "of": "bell"},
        "done": {"origin": "activity", "of": "work"},
    },
    "guards": {"small": "n < limit", "is_hard": "hard"},
    "actions": {
        "add": {"set": {"n": "n + 1"}},
        "arm": {"do": {"effect": "timer.start", "timer": "bell"}},
        "start": {"when": "n == 0", "do": [{"effect": "activity.start", "activity": "work"}]},
    },
    "promises": {"rest": ["one"], "always": [{"why": "because", "then": "n >= was_n"}]},
    "chart": {
        "states": {
            "one": {
                "initial": True,
                "enter": ["arm", "start"],
                "transitions": [
                    {"event": "go", "target": "two", "cond": ["small", "is_hard"], "on": "add"},
                    {"event": "go"},
                    {"event": "ring done"},
                ],
            },
            "two": {
                "transitions": [{"event": "go", "target": "past", "unless": "small"}],
                "history": {"past": {"transitions": [{"target": "inner"}]}},
                "states": {"inner": {"initial": True}, "last": None},
            },
        }
    },
}
GOOD["chart"]["states"]["two"]["states"]["inner"] = {
    "initial": True,
    "transitions": [{"event": "ring", "target": "last"}],
}


@pytest.mark.parametrize("reader", [read, read_any, from_scxml, from_xstate, from_native])
@pytest.mark.parametrize("value", [None, 3, GOOD])
def test_reading_no_text_is_an_error_of_the_document(reader: Any, value: Any) -> None:
    """Such as the result of a look-up that found nothing; the kind found is named."""
    kind = "nothing" if value is None else type(value).__name__

    with pytest.raises(ChartError, match=f"expected the text of a document, got {kind}"):
        reader(value)


def with_(path: str, value: Any) -> dict[str, Any]:
    """Return the good document with *value* at *path*; ``DELETE`` takes the key out."""
    raw: Any = copy.deepcopy(GOOD)
    at = raw
    *parents, last = [int(key) if key.isdigit() else key for key in path.split("/")]
    for key in parents:
        at = at[key]
    if value is DELETE:
        del at[last]
    else:
        at[last] = value
    return dict(raw)


DELETE = object()
STATE = "chart/states/one"
FIRST = "chart/states/one/transitions/0"


def test_valid_document_is_accepted() -> None:
    """What the table below breaks in one place each is sound to begin with."""
    document = from_mapping(copy.deepcopy(GOOD))

    assert document.name == "Small"
    assert document.parameters["limit"].initial == 2
    assert document.data["mode"].initial == "a"


@pytest.mark.parametrize(
    ("path", "value", "error"),
    [
        # sections
        ("format", "v0", "format: expected 'swapchart.chart/v1', got 'v0'"),
        ("color", 1, "color: unknown section; known: format, name, version"),
        ("data", [], "data: expected a mapping with text keys, got list"),
        ("data", {1: {}}, "data: expected a mapping with text keys, got dict"),
        ("data/n", {}, "data.n: expected `initial` (text, int or bool) or `values`"),
        ("data/n/size", 1, "data.n.size: unknown key; known: initial, values"),
        ("data/n/initial", 1.5, "data.n.initial: expected text, int or bool, got 1.5"),
        ("data/mode/initial", "c", "data.mode: initial 'c' is none of ('a', 'b')"),
        ("data/mode/values", [1, 2.5], "data.mode.values: expected text, int or bool, got 2.5"),
        ("data/mode", {"initial": True, "values": [1, 0]}, "data.mode: initial True is none of"),
        # events
        ("events/go", 1, "events.go: expected a mapping with text keys, got 1"),
        ("events/go/origin", "me", "events.go.origin: expected one of user, activity, timer, proc"),
        ("events/ring/of", DELETE, "events.ring: `of` goes with the origins activity and timer"),
        ("events/go/of", "bell", "events.go: `of` goes with the origins activity and timer"),
        ("events/ring/of", "gong", "events.ring.of: no action starts timer 'gong'"),
        ("events/done/of", "play", "events.done.of: no action starts activity 'play'"),
        (
            "events/ring",
            {"origin": "process"},
            "actions.arm: no event says that timer 'bell' ran out; declare one",
        ),
        ("events/go/data/hard", [], "events.go.data.hard: expected the values it can have"),
        ("events/go/data", [], "events.go.data: expected a mapping"),
        ("events/send", {}, "events.send: declared but not used in the chart"),
        ("events/go on", {}, "events.go on: declared but not used"),
        # guards and actions
        ("guards/small", "n <", "guards.small: expected an expression, got 'n <'"),
        ("guards/small", "n\0", "guards.small: expected an expression"),
        ("guards/small", "m < 1", "guards.small: unknown name 'm' in 'm < 1'; known: hard, limit"),
        ("guards/small", "n.real", "guards.small: Attribute is not allowed in 'n.real'"),
        ("guards/small", "n + 1.5", "guards.small: constant 1.5 is not allowed"),
        ("guards/small", "abs(n)", "guards.small: only min(..) and max(..) may be called"),
        ("guards/small", "n" + " + n" * 200, "guards.small: expected at most 500 characters"),
        (
            "guards/small",
            "mode < n",
            "guards.small: 'mode < n' fails for mode='a', n=0: '<' not sup",
        ),
        ("guards/small", "min(n)", "guards.small: 'min(n)' fails for n=0: 'int' object is not it"),
        (
            "guards/small",
            "1 < 'a'",
            "fails: '<' not supported between instances of 'int' and 'str'",
        ),
        ("guards/small", None, "guards.small: expected a text, got nothing"),
        (
            "guards/small",
            DELETE,
            "chart.states.one.transitions[0].cond[0]: unknown guard 'small'; declare it under",
        ),
        ("guards/n", "n == 1", "guards.n: declared but not used in the chart"),
        ("actions/add", {}, "actions.add: expected `do`, `set` or both"),
        ("actions/add/say", 1, "actions.add.say: unknown key; known: when, do, set"),
        ("actions/add/set/m", "1", "actions.add.set.m: expected the name of a datum"),
        ("actions/add/set/n", "n +", "actions.add.set.n: expected an expression"),
        ("actions/start/when", "n ==", "actions.start.when: expected an expression"),
        (
            "actions/start/when",
            "hard",
            "chart.states.one.enter: 'start' reads 'hard', which only events",
        ),
        ("actions/arm/do/effect", "fly", "actions.arm.do: unknown effect 'fly'; known: activity."),
        ("actions/arm/do/effect", [], "actions.arm.do: unknown effect []; known: activity.cancel"),
        (
            "actions/arm/do/timer",
            DELETE,
            "actions.arm.do: effect timer.start takes timer; got noth",
        ),
        ("actions/arm/do/delay", "1", "effect timer.start takes timer; got timer, delay"),
        ("actions/arm/do", [1], "actions.arm.do[0]: expected a mapping with text keys, got 1"),
        ("actions/arm/do/timer", 5, "actions.arm.do.timer: expected a text, got 5"),
        (
            "actions/arm/do/timer",
            "work",
            "actions.arm: 'work' is the name of an activity and of a timer",
        ),
        (
            "actions/add/do",
            {"effect": "timer.cancel", "timer": "gong"},
            "actions.add: no action star",
        ),
        (
            "actions/add/do",
            {"effect": "activity.cancel", "activity": "x"},
            "actions.add: no action",
        ),
        ("actions/limit", {"set": {"n": "0"}}, "actions.limit: declared but not used in the chart"),
        ("actions/state", {"set": {"n": "0"}}, "actions.state: declared but not used in the chart"),
        # promises
        ("promises", [], "promises: expected a mapping"),
        ("promises/noise", [], "promises.noise: unknown key; known: rest, quiet, serving, pairs"),
        ("promises/rest", [1], "promises.rest[0]: expected a text, got 1"),
        ("promises/rest", "three", "promises.rest: unknown state 'three'"),
        ("promises/stopping", "three", "promises.stopping: unknown state 'three'"),
        ("promises/unsure", "three", "promises.unsure: unknown activity or timer 'three'"),
        ("promises/patience", "three", "promises.patience: unknown event 'three'"),
        (
            "promises/pairs",
            [{"begin": "one"}],
            "promises.pairs[0].end: expected a text, got nothing",
        ),
        ("promises/pairs", [{"begin": "one", "end": "x"}], "promises.pairs[0]: unknown state 'x'"),
        ("promises/requests", {"ask": "go"}, "promises.requests.give_up: expected a text"),
        (
            "promises/requests",
            {"ask": "x", "give_up": "go", "done": "go", "waiting": "n", "served": "n"},
            "promises.requests: unknown event 'x'",
        ),
        (
            "promises/requests",
            {"ask": "go", "give_up": "go", "done": "go", "waiting": "z", "served": "n"},
            "promises.requests: unknown datum 'z'",
        ),
        (
            "promises/process",
            {"activity": "z", "up": "go", "down": "go"},
            "promises.process: unknown activity 'z'",
        ),
        ("promises/always/0/why", DELETE, "promises.always[0].why: expected a text"),
        ("promises/always/0/then", DELETE, "promises.always[0]: expected one of: to, never, asks"),
        ("promises/always/0/then", "was_m == 1", "promises.always[0].then: unknown name 'was_m'"),
        ("promises/always/0/stays", "yes", "promises.always[0].stays: expected true or false, got"),
        (
            "promises/always/0/asks",
            "timer.start gong",
            "promises.always[0]: unknown effect 'timer.",
        ),
        ("promises/always/0/live", "gong", "promises.always[0]: unknown activity or timer 'gong'"),
        ("promises/always/0/event", "gong", "promises.always[0]: unknown event 'gong'"),
        ("promises/always/0/never", "gong", "promises.always[0]: unknown state 'gong'"),
        # the chart
        ("chart", {}, "chart.states: expected at least one state"),
        ("chart/speed", 1, "chart.speed: unknown key; known: name, states"),
        ("chart/states", ["one"], "chart.states: expected a mapping"),
        (STATE, "x", "chart.states.one: expected a mapping with text keys, got 'x'"),
        (f"{STATE}/color", 1, "chart.states.one.color: unknown key; known: initial, final"),
        (f"{STATE}/initial", "yes", "chart.states.one.initial: expected true or false, got 'yes'"),
        (f"{STATE}/initial", DELETE, "chart.states: expected one state marked initial, got none"),
        (
            "chart/states/two/initial",
            True,
            "chart.states.two.initial: expected one state marked initial, got one",
        ),
        (
            "chart/states/two/states/inner/initial",
            DELETE,
            "chart.states.two.states: expected one state marked",
        ),
        (
            f"{STATE}/final",
            True,
            "chart.states.one: a final state has neither states nor transitions",
        ),
        (
            f"{STATE}/parallel",
            True,
            "chart.states.one.parallel: only a state with states inside can have",
        ),
        (
            f"{STATE}/history",
            {"h": {"transitions": [{"target": "one"}]}},
            "chart.states.one.history: only",
        ),
        (
            f"{STATE}/enter",
            [{"assign": 1}],
            "chart.states.one.enter[0].assign: unknown key; known: when",
        ),
        (f"{STATE}/transitions", {}, "chart.states.one.transitions: expected a list, got dict"),
        (FIRST, "go", "chart.states.one.transitions[0]: expected a mapping, got 'go'"),
        (f"{FIRST}/do", 1, "chart.states.one.transitions[0].do: unknown key; known: event, target"),
        (f"{FIRST}/event", 1, "chart.states.one.transitions[0].event: expected a text, got 1"),
        (f"{FIRST}/target", "six", "chart.states.one.transitions[0].target: unknown state 'six'"),
        (f"{FIRST}/internal", "no", "chart.states.one.transitions[0].internal: expected true or f"),
        (
            f"{FIRST}/internal",
            True,
            "chart.states.one.transitions[0].internal: its target is not inside 'o",
        ),
        (
            f"{FIRST}/event",
            "fly",
            "chart.states.one.transitions[0].event: unknown event 'fly'; declare",
        ),
        (
            f"{FIRST}/event",
            "done.state.six",
            "chart.states.one.transitions[0].event: unknown event 'done.state.six'",
        ),
        (
            f"{FIRST}/on",
            "fly",
            "chart.states.one.transitions[0].on: unknown action 'fly'; declare it",
        ),
        (
            f"{FIRST}/event",
            "ring",
            "chart.states.one.transitions[0].cond: 'is_hard' reads 'hard', which its",
        ),
        (
            f"{STATE}/transitions/1",
            {"cond": "small"},
            "chart.states.one.transitions[1]: without event and",
        ),
        (
            "chart/states/two/history/past/type",
            "wide",
            "chart.states.two.history.past.type: expected",
        ),
        (
            "chart/states/two/history/past",
            {},
            "chart.states.two.history.past: expected one transitio",
        ),
        (
            "chart/states/two/history/past/transitions/0",
            {"event": "go"},
            "chart.states.two.history.past.transitions[",
        ),
        (
            "chart/states/two/states/one",
            {},
            "chart.states.two.states.one: state id 'one' is also used at chart.states.one",
        ),
        (
            "chart/states/send",
            {},
            "chart.states.send: 'send' is not an identifier, or the library's own na",
        ),
        (
            "chart/states/a b",
            {},
            "chart.states.a b: 'a b' is not an identifier, or the library's own name",
        ),
    ],
)
def test_document_mistake_is_reported(path: str, value: Any, error: str) -> None:
    """One thing is broken, and one of the reported problems says which."""
    with pytest.raises(ChartError) as caught:
        from_mapping(with_(path, value))

    assert error in "\n".join(caught.value.__notes__)


@pytest.mark.parametrize("raw", [None, 3, "text", []])
def test_document_that_is_not_a_mapping_is_refused(raw: Any) -> None:
    """Anything else than a mapping is refused for what it is."""
    with pytest.raises(ChartError, match="chart document: expected a mapping, got"):
        from_mapping(raw)


def test_name_with_another_meaning_is_refused() -> None:
    """A name is declared once, and neither the library nor the context uses it already."""
    raw = copy.deepcopy(GOOD)
    raw["data"] |= {"event": {"initial": 0}, "was_n": {"initial": 0}, "small": {"initial": 0}}

    with pytest.raises(ChartError) as caught:
        from_mapping(raw)

    notes = "\n".join(caught.value.__notes__)
    for line in (
        "data.event: expected an identifier that is not reserved",
        "data.was_n: expected an identifier that is not reserved",
        "guards.small: name also used among the data",
    ):
        assert line in notes


def test_event_with_a_library_name_is_refused() -> None:
    """An event called like a method of the library would replace that method."""
    raw = copy.deepcopy(GOOD)
    raw["events"]["send"] = {}
    raw["chart"]["states"]["one"]["transitions"].append({"event": "send"})

    with pytest.raises(ChartError, match=r"events\.send: expected words joined by dots"):
        from_mapping(raw)


def test_document_error_counts_and_lists_all_problems() -> None:
    """The message names the first and counts the others; the note lists them all."""
    raw = copy.deepcopy(GOOD)
    raw["format"] = None
    raw["color"] = raw["shape"] = 1

    with pytest.raises(ChartError, match=r"color: unknown section; .* \(and 2 more\)") as caught:
        from_mapping(raw)

    assert len(caught.value.__notes__[0].splitlines()) == 3


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("a: [", "chart document: not YAML"),
        (
            "a: 1\nb: 2\na: 3\n",
            "line 3, column 1: chart document: duplicate key 'a', first on line 1",
        ),
        ("a: {1: 2}", "line 1, column 5: chart document: expected a text as key, got 1"),
        ("!!python/object:os.system {}", "chart document: not YAML"),
    ],
)
def test_yaml_with_duplicate_keys_or_tags_is_refused(text: str, error: str) -> None:
    """Duplicate keys, keys that are no text and tags that are more than data are errors."""
    with pytest.raises(ChartError, match=r"line|chart document") as caught:
        read(text)

    assert error in str(caught.value) + "".join(getattr(caught.value, "__notes__", ()))


def test_yaml_words_stay_text() -> None:
    """``on``, ``yes`` and ``no`` are names in a chart, not truth values."""
    text = yaml.safe_dump(GOOD).replace("'on'", "on")

    document = read(text.replace("mode:\n    values:\n    - a", "mode:\n    values:\n    - yes"))

    assert isinstance(document, Document)
    assert document.data["mode"].values == ("yes", "b")


def test_shipped_chart_is_cached() -> None:
    """It ships with the package and is cached."""
    assert lifecycle() is lifecycle()
    above = {name: ancestors for name, _, ancestors in lifecycle().states()}
    assert above["launching"] == ("alive", "starting")


def test_read_versioned_chart_with_payload_keeps_both() -> None:
    """Version and type of the payload are texts; an event may carry a payload or be a failure."""
    document = read(
        "format: swapchart.chart/v1\nversion: 2\npayload: Order\n"
        "events:\n  go: {payload: true}\n  broke: {origin: activity, of: work, on: error}\n"
        "actions: {work: {do: {effect: activity.start, activity: work}}}\n"
        "chart: {states: {a: {initial: true, enter: work, transitions: [{event: go broke}]}}}\n"
    )

    assert (document.version, document.payload) == ("2", "Order")
    assert document.events["go"].payload
    assert document.events["broke"].on == "error"


@pytest.mark.parametrize(
    ("event", "where"),
    [
        ("{on: error}", r"events\.go\.on: expected for an event of an activity, not of origin"),
        ("{payload: 1}", r"events\.go\.payload: expected true or false"),
    ],
)
def test_read_event_with_misplaced_key_is_refused(event: str, where: str) -> None:
    """Only an activity can fail, and a payload is there or not."""
    with pytest.raises(ChartError, match=where):
        read(
            f"format: swapchart.chart/v1\nevents: {{go: {event}}}\n"
            "chart: {states: {a: {initial: true, transitions: [{event: go}]}}}\n"
        )


@pytest.mark.parametrize(
    ("states", "error"),
    [
        (
            "a: {initial: true, transitions: [{event: go, target: b}]}\n"
            "    b: {transitions: [{target: a, cond: small}]}",
            "6:9: chart.states.b.transitions: choice without else: if no guard of 'b' holds",
        ),
        (
            "a: {initial: true, transitions: [{event: go, cond: small}]}\n    b: {initial: true}",
            "6:9: chart.states.b.initial: expected one state marked initial, got a, b",
        ),
        (
            "a: {initial: true, transitions: [{event: go, cond: small}]}\n    b: {}",
            "6:5: chart.states.b: state 'b' is unreachable: no transition leads to it",
        ),
        (
            "a: {initial: true, transitions: [{event: go, target: b, cond: small},"
            " {event: go, target: c}]}\n    b: {}\n    c: {final: true}",
            "6:5: chart.states.b: no way leads from 'b' to a final state",
        ),
    ],
)
def test_read_chart_that_the_library_refuses_is_refused_with_its_line(
    states: str, error: str
) -> None:
    """What python-statemachine would say of the whole chart is said of the state."""
    text = (
        "format: swapchart.chart/v1\nevents: {go: {}}\nguards: {small: 1 < 2}\n"
        f"chart: {{states: {{\n    {states.replace(chr(10), ',' + chr(10))}}}}}\n"
    )
    with pytest.raises(ChartError) as caught:
        read(text, "x.yaml")

    assert [str(problem) for problem in caught.value.problems if error in str(problem)]


def test_read_state_that_waits_for_another_region_needs_no_else() -> None:
    """A guard of a parallel state can come true by what another region does."""
    document = read(
        "format: swapchart.chart/v1\nevents: {go: {}}\n"
        "chart: {states: {p: {initial: true, parallel: true, states: {\n"
        "  x: {states: {x1: {initial: true, transitions: [{event: go, target: x2}]}, x2: {}}},\n"
        "  y: {states: {y1: {initial: true, transitions: [{target: y2, cond: in(x2)}]},\n"
        "    y2: {}}}}}}}"
    )

    assert "in_x2" in document.data


# ---- what YAML 1.1 takes for something else
STATES = "chart: {{states: {{a: {{initial: true}}}}}}\n"


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("1.10", "expected a text, got the number 1.1; put it in quotes"),
        ("1_0.5", "the number 10.5; put it in quotes"),
        ("12:30", "YAML reads '12:30' as 750; put it in quotes if it is a text, else write 750"),
        ("1:30.5", "YAML reads '1:30.5' as 90.5"),
        ("017", "YAML reads '017' as 15"),
        ("0x1f", "YAML reads '0x1f' as 31"),
        ("2024-01-31", "YAML reads '2024-01-31' as a date; put it in quotes"),
        ("2024-01-31 12:00:00", "as a date; put it in quotes"),
        (".inf", "YAML reads '.inf' as inf"),
    ],
)
def test_version_that_yaml_changes_is_refused_with_its_line(written: str, said: str) -> None:
    """The error has the cure, and the quoted version is kept as it is written."""
    text = "format: swapchart.chart/v1\nversion: {}\n" + STATES
    with pytest.raises(ChartError) as caught:
        read(text.format(written))

    assert any(said in str(problem) for problem in caught.value.problems)
    assert "line 2, column " in str(caught.value)
    assert read(text.format(f'"{written}"')).version == written


@pytest.mark.parametrize("written", ["12:30", "017", "0x1f", "2024-01-31"])
def test_value_that_yaml_changes_is_refused_anywhere(written: str) -> None:
    """Also as a value of a datum, which may be a number or a text."""
    text = "format: swapchart.chart/v1\ndata: {{n: {{values: [1, {}]}}}}\n" + STATES
    with pytest.raises(ChartError, match=f"line 2, column 24: .*{written}"):
        read(text.format(written))


@pytest.mark.parametrize("written", ["1", "2", "on", "1e3", "1.2.3", "v1", "-7", "1_000"])
def test_version_that_yaml_leaves_alone_is_read(written: str) -> None:
    """A whole number is a version; so are words that other readers of YAML take for bools."""
    text = "format: swapchart.chart/v1\nversion: {}\n" + STATES
    assert read(text.format(written)).version == written.replace("_", "")
