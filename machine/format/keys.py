"""Table of all keys of a chart document.

The parser, the JSON Schema, the reference in docs/chart.md and the suggestions for misspelled keys
are made from this table, so that a key is written down once.
"""

from __future__ import annotations

from typing import get_args

from ..document import FORMAT, Origin
from .shapes import (
    Choice,
    Duration,
    EffectShape,
    Entry,
    Flag,
    Key,
    ListOf,
    MapOf,
    Object,
    Scalar,
    Scalars,
    Shape,
    Text,
)

_EXPRESSION = Text("expression", is_free=True)
_FLAG = (Flag(),)
_STATE = Text("state")
_STATES = (ListOf((_STATE,)),)
_EVENTS = (ListOf((Text("event"),)),)
_CLOCKS = (ListOf((Text("activity or timer"),)),)
_EFFECTS = (ListOf((Text("effect in words"),)),)
_ACTIONS = (ListOf((Text("action"), Entry("action"))),)
_GUARDS = (ListOf((Text("guard or expression", is_free=True),)),)
_WAYS: tuple[Shape, ...] = (_STATE, Entry("reaction"), ListOf((Entry("reaction"),), is_strict=True))
_DESCRIPTION = Key((Text(),), "Words for readers; they change nothing.")
_TAGS = Key((ListOf((Text("tag"),)),), "Tags for readers and tools; they change nothing.")

_EFFECT_OF_TRANSITION = {
    "target": Key((Text("state or history state"),), "State to enter; without it, none is left."),
    "cond": Key(
        _GUARDS, "Guards that must all hold: names, or expressions such as `amount < 1000`."
    ),
    "unless": Key(_GUARDS, "Guards of which none may hold."),
    "on": Key(_ACTIONS, "Actions between exit and entry."),
    "before": Key(_ACTIONS, "Actions before the exit."),
    "after": Key(_ACTIONS, "Actions after the entry."),
    "internal": Key(_FLAG, "The target is inside the state, which is not left itself."),
    "description": _DESCRIPTION,
    "tags": _TAGS,
}

KEYS: dict[str, Object] = {
    "document": Object(
        "The whole file.",
        {
            "format": Key((Choice((FORMAT,)),), "Name and version of the format.", True),
            "name": Key((Text(is_free=True),), "Name of the chart."),
            "version": Key(
                (Text("text or whole number", is_free=True),),
                "Version of the chart, chosen by its author; snapshots carry it. One with a point "
                'is written in quotes: `"1.10"`.',
            ),
            "description": _DESCRIPTION,
            "tags": _TAGS,
            "payload": Key(
                (Text(is_free=True),),
                "Type of the opaque payload of an instance, in words; guards cannot read it.",
            ),
            "unhandled": Key(
                (Choice(("error", "ignore")),),
                "What becomes of an event that no active state handles; `error` by default. With "
                "`ignore`, each top-level state ignores the events that are not handled inside.",
                is_sugar=True,
            ),
            "data": Key((MapOf("name", (Entry("datum"),)),), "Variables of an instance."),
            "parameters": Key(
                (MapOf("name", (Entry("datum"),)),), "Values fixed when an instance is made."
            ),
            "events": Key((MapOf("name", (Entry("event"),)),), "Events and their senders."),
            "timers": Key(
                (MapOf("name", (Duration(),)),),
                "Durations of timers. A timer without one gets it from the program.",
            ),
            "guards": Key(
                (MapOf("name", (_EXPRESSION,)),),
                "Named conditions of transitions.",
            ),
            "actions": Key((MapOf("name", (Entry("action"),)),), "Named changes and effects."),
            "promises": Key((Entry("promises"),), "Properties that the checker proves."),
            "notes": Key(
                (MapOf("action", (Text(),)),),
                "What an action means for one instance, for diagrams.",
            ),
            "chart": Key((Entry("chart"),), "The states.", True),
        },
        "unknown section",
    ),
    "datum": Object(
        "A variable or parameter with its domain.",
        {
            "initial": Key((Scalar(),), "First value; by default the first of `values`."),
            "values": Key((Scalars(),), "The whole domain; without it, the datum is a count."),
            "description": _DESCRIPTION,
        },
    ),
    "event": Object(
        "Declaration of an event.",
        {
            "origin": Key(
                (Choice(get_args(Origin)),),
                "Who sends it: `user` (the default), an activity, a timer, a process, or the "
                "`chart` itself by `raise`.",
            ),
            "of": Key((Text("activity or timer"),), "The activity or timer that sends it."),
            "on": Key(
                (Choice(("done", "error")),),
                "The runtime sends it when the activity returns no event (`done`) or fails "
                "(`error`).",
            ),
            "data": Key(
                (MapOf("field", (Scalars(),)),),
                "Fields and their values, which guards and actions of its transitions can read.",
            ),
            "payload": Key(_FLAG, "It may carry a payload, which no guard reads."),
            "unhandled": Key(
                (Choice(("error", "ignore")),), "As in the document, for this event.", is_sugar=True
            ),
            "description": _DESCRIPTION,
            "tags": _TAGS,
        },
    ),
    "action": Object(
        "Assignments and effects, by a name under `actions` or in the place of a name.",
        {
            "when": Key((_EXPRESSION,), "If it is false, the action does nothing."),
            "do": Key((ListOf((EffectShape(),)),), "Effects, in order."),
            "set": Key(
                (MapOf("datum", (_EXPRESSION,)),),
                "Assignments; all expressions are evaluated before any value is assigned.",
            ),
            "raise": Key(
                _EVENTS,
                "Events that the chart sends to itself; they are taken within the same step.",
            ),
            "description": _DESCRIPTION,
        },
    ),
    "chart": Object(
        "The states of the chart.",
        {
            "name": Key((Text(is_free=True),), "As the document's `name`."),
            "states": Key((MapOf("state", (Entry("state"),)),), "The top-level states.", True),
        },
    ),
    "state": Object(
        "A state. With `states` inside it is compound, or parallel.",
        {
            "initial": Key(_FLAG, "It is entered first; one state of each level is."),
            "final": Key(_FLAG, "Entering it ends the state around it, or the chart."),
            "parallel": Key(_FLAG, "All states inside are active together."),
            "enter": Key(_ACTIONS, "Actions on entry."),
            "exit": Key(_ACTIONS, "Actions on exit."),
            "after": Key(
                (MapOf("duration or timer", _WAYS),),
                "Transitions after a time in the state: a duration, or a timer of `timers` or of "
                "the program. The timer is armed on entry and canceled on exit.",
                is_sugar=True,
            ),
            "invoke": Key(
                (ListOf((Entry("invocation"),)),),
                "Activities that run while the state is active.",
                is_sugar=True,
            ),
            "ignores": Key(
                _EVENTS,
                "Events that change nothing here, as far as nothing else takes them.",
                is_sugar=True,
            ),
            "transitions": Key(
                (ListOf((Entry("transition"),), is_strict=True),),
                "Transitions; of those for one event, the first whose guards hold is taken.",
            ),
            "states": Key((MapOf("state", (Entry("state"),)),), "The states inside."),
            "history": Key((MapOf("name", (Entry("history"),)),), "Memory of the states inside."),
            "description": _DESCRIPTION,
            "tags": _TAGS,
        },
    ),
    "transition": Object(
        "A transition of the state that contains it.",
        {
            "event": Key(
                (Text("events"),),
                "Events, separated by spaces, or `*` for every declared event; without it, the "
                "transition is taken as soon as its guards hold. `done.state.NAME` says that NAME "
                "has reached its final states.",
            ),
            **_EFFECT_OF_TRANSITION,
        },
    ),
    "reaction": Object("A transition whose event follows from its place.", _EFFECT_OF_TRANSITION),
    "invocation": Object(
        "An activity that starts on entry and is canceled on exit.",
        {
            "activity": Key((Text("activity"),), "Its name.", True),
            "point": Key((Text(),), "Hook point, for the activity `hooks`."),
            "done": Key(_WAYS, "What follows when it ends without an event."),
            "error": Key(_WAYS, "What follows when it fails."),
            "answers": Key(
                (MapOf("event", _WAYS),), "Events by which it can end, and what follows."
            ),
        },
    ),
    "history": Object(
        "A history state: a target that means the states that were active last.",
        {
            "type": Key(
                (Choice(("shallow", "deep")),),
                "`shallow` (the default) remembers the states one level below, `deep` all.",
            ),
            "transitions": Key(
                (ListOf((Entry("transition"),), is_strict=True),),
                "One transition without event: where to go when nothing is remembered.",
            ),
        },
    ),
    "promises": Object(
        "What the checker proves or refutes.",
        {
            "rest": Key(_STATES, "States that may last for ever."),
            "quiet": Key(_STATES, "States in which no process may exist."),
            "serving": Key(_STATES, "The only states in which requests are admitted."),
            "pairs": Key((ListOf((Entry("pair"),)),), "Visits that belong together."),
            "requests": Key((Entry("requests"),), "How the chart counts requests."),
            "process": Key((Entry("process"),), "How the chart knows its process."),
            "stopping": Key((_STATE,), "State in which callers of a stop wait."),
            "unsure": Key(_CLOCKS, "Activities and timers that may never answer."),
            "reliable": Key(
                (ListOf((Text("activity"),)),), "Activities that never fail, so no event says so."
            ),
            "patience": Key(_EVENTS, "Events that do not repeat for ever."),
            "always": Key((ListOf((Entry("always"),)),), "Rules that each step keeps."),
        },
    ),
    "pair": Object(
        "A state, once entered, is followed by one visit of another.",
        {
            "begin": Key((_STATE,), "The first state.", True),
            "end": Key((_STATE,), "The state that must follow.", True),
            "by": Key(_STATES, "States that must not be entered before."),
            "unless": Key(_EVENTS, "Events after which the visit is no longer due."),
            "also": Key(_EVENTS, "Events that make the visit due too."),
        },
    ),
    "requests": Object(
        "Counted requests.",
        {
            "ask": Key((Text("event"),), "A request comes.", True),
            "give_up": Key((Text("event"),), "A waiting request leaves.", True),
            "done": Key((Text("event"),), "An admitted request has ended.", True),
            "waiting": Key((Text("datum"),), "Counts the waiting requests.", True),
            "served": Key((Text("datum"),), "Counts the admitted requests.", True),
        },
    ),
    "process": Object(
        "The process of the chart.",
        {
            "activity": Key((Text("activity"),), "Launches it; it may outlive its state.", True),
            "up": Key((Text("event"),), "The process exists.", True),
            "down": Key(_EVENTS, "Events after which it does not exist."),
            "needed_by": Key((ListOf((Text("activity"),)),), "Activities that need it alive."),
            "found": Key(
                (Text("event"),),
                "A process of an earlier program comes, in the states in which the chart begins.",
            ),
        },
    ),
    "always": Object(
        "Whenever the premise holds for a step, so does the conclusion.",
        {
            "why": Key((Text(),), "The promise in words.", True),
            "event": Key(_EVENTS, "Premise: the step took one of these events."),
            "from": Key(_STATES, "Premise: one of these states was active before."),
            "in": Key(_STATES, "Premise: one of these states is active after the step."),
            "if": Key((_EXPRESSION,), "Premise: data after the step, and before it as `was_NAME`."),
            "then": Key((_EXPRESSION,), "Conclusion: this expression is true after the step."),
            "stays": Key(_FLAG, "Conclusion: the step changes no state."),
            "to": Key(_STATES, "Conclusion: one of these states is active."),
            "never": Key(_STATES, "Conclusion: none of these states is active."),
            "asks": Key(_EFFECTS, "Conclusion: the step emits these effects."),
            "spares": Key(_EFFECTS, "Conclusion: the step emits none of these effects."),
            "live": Key(_CLOCKS, "Conclusion: these run after the step."),
            "dead": Key(_CLOCKS, "Conclusion: these do not run after the step."),
            "into": Key(_STATES, "Premise: one of these states was entered by the step."),
        },
    ),
}
