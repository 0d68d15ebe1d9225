"""Expansion of the short forms of a chart document to the form that is run, checked and drawn.

``after``, ``invoke``, ``ignores``, ``unhandled``, ``*``, actions and guards in the place of a name,
and ``in(state)`` are replaced by declared events, timers, guards, actions and plain transitions. A
document without short forms is returned as it is, so expanding twice changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ...dataclass import dataclass
from ..document import as_list, split_words
from ..errors import ChartError
from .durations import EXAMPLES, seconds_of
from .generated_names import action_name, guard_name, timer_name
from .hints import meant
from .keys import KEYS
from .state_tests import without_state_tests

SLOTS = ("on", "before", "after")
GUARD_SLOTS = ("cond", "unless")


@dataclass(frozen=True, slots=True)
class Expansion:
    """An expanded document.

    Attributes:
        raw: The document without short forms.
        origins: Path in *raw* -> path of the short form that it comes from.
        problems: What is wrong with the short forms.
    """

    raw: dict[str, Any]
    origins: dict[str, str]
    problems: tuple[ChartError, ...]

    def origin(self, path: str) -> str:
        """Return where the part at *path* was written."""
        head = path
        while head:
            if head in self.origins:
                return self.origins[head] + path[len(head) :]
            head = head[: max(head.rfind("."), head.rfind("["), 0)]
        return path


def expand(raw: Mapping[str, Any]) -> Expansion:
    """Expand *raw*, whose shape was checked; it is not changed."""
    expander = _Expander(_copied(raw))
    expander.run()
    return Expansion(expander.raw, expander.origins, tuple(expander.problems))


class _Expander:
    """Expands one document in place."""

    def __init__(self, raw: dict[str, Any]) -> None:
        self.raw = raw
        self.origins: dict[str, str] = {}
        self.problems: list[ChartError] = []
        self._events = self._section("events")
        self._timers = self._section("timers")
        self._guards = self._section("guards")
        self._actions = self._section("actions")
        self._data = self._section("data")
        self._is_new: set[str] = set()  # names of generated actions and guards
        self._states = dict(_walk(raw["chart"].get("states") or {}, "chart.states"))

    def _section(self, key: str) -> dict[str, Any]:
        found: dict[str, Any] = self.raw.get(key) or {}
        return found

    def _problem(self, where: str, why: str) -> None:
        self.problems.append(ChartError(where, why))

    def run(self) -> None:
        """Expand the document."""
        ignored = self._ignored_events()
        bodies = list(self._states.values())
        for path, name, body in bodies:
            self._clocks(path, name, body)
        for path, _, body in bodies:
            for at, item in _transitions(path, body):
                self._wildcard(item)
                for key in SLOTS:
                    self._inline_actions(item, key, f"{at}.{key}")
            for key in ("enter", "exit"):
                self._inline_actions(body, key, f"{path}.{key}")
        for path, _, body in bodies:
            for at, item in _transitions(path, body):
                for key in GUARD_SLOTS:
                    self._inline_guards(item, key, f"{at}.{key}")
        self._unhandled(ignored)
        self._state_tests()
        for key in ("events", "timers", "guards", "actions", "data"):
            section = getattr(self, f"_{key}")
            if section and key not in self.raw:
                self.raw[key] = section
                _sort(self.raw, "document")

    # ---- after, invoke, ignores --------------------------------------------------------------
    def _clocks(self, path: str, name: str, body: dict[str, Any]) -> None:
        enter: list[str] = []
        leave: list[str] = []
        added: list[tuple[str, dict[str, Any]]] = []
        after, invoked = body.pop("after", None) or {}, body.pop("invoke", None)
        for at, item in _items(invoked, f"{path}.invoke"):
            if item and item.get("activity"):
                self._invoke(at, item, (enter, leave), added)
        cancels: list[str] = []
        arms: list[str] = []
        for key, ways in after.items():
            at = f"{path}.after.{key}"
            timer, event = self._timer(name, key, at)
            if timer:
                start = {"do": {"effect": "timer.start", "timer": timer}}
                stop = {"do": {"effect": "timer.cancel", "timer": timer}}
                arms.append(self._action(f"arm_{timer}", start, at))
                cancels.append(self._action(f"cancel_{timer}", stop, at))
                added += _ways(event, ways, at)
        for at, event in _items(body.pop("ignores", None), f"{path}.ignores"):
            self._known_event(event, at)
            added.append((at, {"event": event}))
        _extend(body, "enter", [*arms, *as_list(body.get("enter")), *enter])
        _extend(body, "exit", [*leave, *as_list(body.get("exit")), *cancels])
        self._add(path, body, added)

    def _add(self, path: str, body: dict[str, Any], added: Iterable[tuple[str, Any]]) -> None:
        """Append transitions to a state, each with the path of what it was written as."""
        transitions = list(body.get("transitions") or ())
        for at, item in added:
            self.origins[f"{path}.transitions[{len(transitions)}]"] = at
            transitions.append(item)
        if len(transitions) > len(body.get("transitions") or ()):
            body["transitions"] = transitions

    def _known_event(self, event: str, where: str) -> None:
        if event not in self._events:
            hint = meant(event, self._events)
            self._problem(where, f"unknown event {event!r}{hint or '; declare it under `events`'}")
            self._events[event] = {}

    def _timer(self, state: str, key: str, where: str) -> tuple[str, str]:
        """Return the timer of ``after: {key: ..}`` in *state*, and its event."""
        timer, named = key, f"{key}_expired"
        if seconds_of(key) is not None:
            timer = named = timer_name(state, key)
            self._timers[timer] = key
        elif key not in self._timers and key not in self._clocks_of_events("timer"):
            hint = meant(key, self._timers)
            why = f"expected a duration such as {EXAMPLES}, or the name of a timer, got {key!r}"
            self._problem(where, f"{why}{hint or '; declare it under `timers`'}")
            self._timers[timer] = 0
        event = next(
            (n for n, e in self._events.items() if e and e.get("of") == timer and _of_timer(e)), ""
        )
        if not event:
            event = self._declare(named, {"origin": "timer", "of": timer}, where)
        return timer, event

    def _clocks_of_events(self, origin: str) -> set[str]:
        return {
            str(event.get("of"))
            for event in self._events.values()
            if event and event.get("origin") == origin
        }

    def _declare(self, event: str, body: dict[str, Any], where: str) -> str:
        """Declare *event* unless it is declared in the same way."""
        known = self._events.setdefault(event, body) or {}
        if any(known.get(key) != value for key, value in body.items()):
            expected = ", ".join(f"{key}: {value}" for key, value in body.items())
            self._problem(where, f"event {event!r} is declared otherwise; expected {expected}")
        elif known is body:
            self.origins[f"events.{event}"] = where
        return event

    def _invoke(
        self, where: str, item: Mapping[str, Any], lists: tuple[list[str], list[str]],
        added: list[tuple[str, dict[str, Any]]],
    ) -> None:  # fmt: skip
        activity, point = item["activity"], item.get("point")
        effect = {"effect": "activity.start", "activity": activity}
        start = {"do": {**effect, "point": point} if point else effect}
        stop = {"do": {"effect": "activity.cancel", "activity": activity}}
        name = f"start_{activity}_{point}" if point else f"start_{activity}"
        lists[0].append(self._action(name, start, where))
        lists[1].append(self._action(f"cancel_{activity}", stop, where))
        for key, suffix in (("done", "done"), ("error", "failed")):
            if item.get(key) is not None:
                body = {"origin": "activity", "of": activity, "on": key}
                event = next(
                    (n for n, e in self._events.items() if e and body.items() <= e.items()),
                    f"{activity}_{suffix}",
                )
                self._declare(event, body, f"{where}.{key}")
                added += _ways(event, item[key], f"{where}.{key}")
        for event, ways in (item.get("answers") or {}).items():
            at = f"{where}.answers.{event}"
            self._declare(event, {"origin": "activity", "of": activity}, at)
            added += _ways(event, ways, at)

    def _action(self, name: str, body: dict[str, Any], where: str) -> str:
        """Return *name*, declared as *body* unless the author has declared it."""
        if name not in self._actions:
            self._actions[name] = body
            self._is_new.add(name)
            self.origins[f"actions.{name}"] = where
        return name

    # ---- in the place of names ---------------------------------------------------------------
    def _wildcard(self, item: dict[str, Any]) -> None:
        words = split_words(item.get("event"))
        if "*" in words:
            others = [name for name in self._events if name not in words]
            item["event"] = " ".join(
                inner for word in words for inner in (others if word == "*" else [word])
            )

    def _inline_actions(self, body: dict[str, Any], key: str, where: str) -> None:
        written = body.get(key)
        if not any(isinstance(item, Mapping) for item in as_list(written)):
            return
        names = []
        for at, item in _items(written, where):
            if not isinstance(item, Mapping):
                names.append(item)
            elif item:
                action = dict(item)
                taken = {n for n, body in self._actions.items() if body != action}
                taken |= {*self._guards, *self._data, *self._states, *self._events}
                names.append(self._action(action_name(action, taken), action, at))
        body[key] = names[0] if len(names) == 1 else names

    def _inline_guards(self, body: dict[str, Any], key: str, where: str) -> None:
        written = body.get(key)
        names = []
        for at, item in _items(written, where):
            is_name = isinstance(item, str) and item.isidentifier() and item not in self._values()
            if item in self._guards or is_name:
                names.append(item)
                continue
            text = str(item)
            taken = {name for name, known in self._guards.items() if known != text}
            taken |= {*self._actions, *self._values(), *self._states, *self._events}
            name = guard_name(text, taken)
            if name not in self._guards:
                self._guards[name] = text
                self.origins[f"guards.{name}"] = at
            names.append(name)
        if names != as_list(written):
            body[key] = names[0] if len(names) == 1 else names

    def _values(self) -> set[str]:
        """Return the names that an expression may read."""
        fields = {
            name for event in self._events.values() for name in ((event or {}).get("data") or {})
        }
        return {*self._data, *(self.raw.get("parameters") or {}), *fields}

    # ---- events that nothing handles ---------------------------------------------------------
    def _ignored_events(self) -> dict[str, str]:
        """Return the events that are ignored where nothing handles them, with the path why."""
        default = self.raw.pop("unhandled", None)
        self._default = default
        found: dict[str, str] = {}
        for name, event in self._events.items():
            own = (event or {}).pop("unhandled", None)
            if own == "ignore":
                found[name] = f"events.{name}.unhandled"
            elif own is None and default == "ignore":
                found[name] = "unhandled"
        self._kept = {name for name, event in self._events.items() if name not in found}
        return found

    def _unhandled(self, ignored: dict[str, str]) -> None:
        if self._default == "ignore":  # short forms have declared more since
            ignored |= {n: "unhandled" for n in self._events if n not in self._kept}
        if not ignored:
            return
        for path, _, body in self._states.values():
            if path.count(".") == 2 and not body.get("final"):
                where = next(iter(ignored.values()))
                self._add(path, body, [(where, {"event": " ".join(ignored)})])

    # ---- in(state) ---------------------------------------------------------------------------
    def _state_tests(self) -> None:
        tested: dict[str, str] = {}

        def replaced(holder: dict[str, Any], key: str, where: str) -> None:
            text = holder.get(key)
            if isinstance(text, str) and "in" in text:
                holder[key], states = without_state_tests(text)
                for state in states:
                    tested.setdefault(state, where)

        for name in self._guards:
            replaced(self._guards, name, f"guards.{name}")
        for name, action in self._actions.items():
            if isinstance(action, dict):
                replaced(action, "when", f"actions.{name}.when")
                for target in action.get("set") or {}:
                    replaced(action["set"], target, f"actions.{name}.set.{target}")
        promises = self.raw.get("promises") or {}
        for at, item in _items(promises.get("always"), "promises.always"):
            for key in ("if", "then"):
                replaced(item, key, f"{at}.{key}")
        for state, where in tested.items():
            self._note_visits(state, where)

    def _note_visits(self, state: str, where: str) -> None:
        datum = f"in_{state}"
        if state not in self._states:
            hint = meant(state, self._states)
            self._problem(where, f"unknown state {state!r} in `in({state})`{hint}")
        elif datum in self._values():
            self._problem(where, f"`in({state})` needs the name {datum!r}, which is taken")
        else:
            _, _, body = self._states[state]
            entered = self._action(f"note_in_{state}", {"set": {datum: "True"}}, where)
            left = self._action(f"note_out_{state}", {"set": {datum: "False"}}, where)
            _extend(body, "enter", [entered, *as_list(body.get("enter"))])
            _extend(body, "exit", [*as_list(body.get("exit")), left])
        self._data.setdefault(datum, {"initial": False, "values": [False, True]})


def _of_timer(event: Mapping[str, Any]) -> bool:
    return event.get("origin") == "timer"


def _walk(
    states: Mapping[str, Any], where: str
) -> Iterator[tuple[str, tuple[str, str, dict[str, Any]]]]:
    """Yield ``(name, (path, name, body))`` of all states; a state without a body gets one."""
    for name in states:
        if states[name] is None:
            assert isinstance(states, dict)
            states[name] = {}
        path = f"{where}.{name}"
        yield name, (path, name, states[name])
        yield from _walk(states[name].get("states") or {}, f"{path}.states")


def _transitions(path: str, body: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for index, item in enumerate(body.get("transitions") or ()):
        yield f"{path}.transitions[{index}]", item
    for name, history in (body.get("history") or {}).items():
        for index, item in enumerate((history or {}).get("transitions") or ()):
            yield f"{path}.history.{name}.transitions[{index}]", item


def _items(value: Any, where: str) -> Iterator[tuple[str, Any]]:
    """Yield each item of *value* with its path; one item may stand for a list of one."""
    if isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield f"{where}[{index}]", item
    elif value is not None:
        yield where, value


def _ways(event: str, value: Any, where: str) -> list[tuple[str, dict[str, Any]]]:
    """Return the transitions for *event* that *value* stands for, each with its path."""
    if isinstance(value, str):
        return [(where, {"event": event, "target": value})]
    if value is None:
        return [(where, {"event": event})]
    return [(at, {"event": event, **(item or {})}) for at, item in _items(value, where)]


def _extend(body: dict[str, Any], key: str, actions: list[Any]) -> None:
    """Set the actions of *key*, written as before if they are the same."""
    if actions != as_list(body.get(key)):
        body[key] = actions[0] if len(actions) == 1 else actions
        _sort(body, "state")


def _sort(body: dict[str, Any], kind: str) -> None:
    """Put the keys of *body* into the order of the table."""
    fields = {key: body[key] for key in KEYS[kind].keys if key in body}
    body.clear()
    body.update(fields)


def _copied(raw: Any) -> Any:
    """Return *raw* with nothing shared, as aliases in YAML share it."""
    if isinstance(raw, Mapping):
        return {key: _copied(value) for key, value in raw.items()}
    if isinstance(raw, (list, tuple)):
        return [_copied(value) for value in raw]
    return raw
