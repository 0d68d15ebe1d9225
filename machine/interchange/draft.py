"""Chart document in the making: names that fit, declarations of what the chart mentions, losses.

Other tools allow names that a document does not: ``wait-for-user``, two states called ``idle``, an
event called ``name``. A `Draft` gives each of them a name that fits, and declares every event,
guard and action on its first use. A guard whose meaning is unknown is free: the checker assumes
both values for it at every step.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from keyword import iskeyword
from typing import Any

from ...dataclass import dataclass
from ..document import FORMAT, Document, Value, as_list, split_words, walk
from ..errors import ChartError
from ..format.build import build
from ..format.name_rules import RESERVED, WAS
from ..format.parse import from_mapping
from ..format.structure_rules import is_the_librarys, names_of_states, unreachable_states

_DONE = "done.state."


@dataclass(frozen=True, slots=True)
class Loss:
    """A part of a foreign chart that a document cannot express.

    Attributes:
        where: Path in the foreign chart, such as ``waiting.transitions[2]``.
        why: What is lost, and what to do instead.
        is_harmless: True if the document does the same, such as after a change of a name.
    """

    where: str
    why: str
    is_harmless: bool = False

    def __str__(self) -> str:
        """Return path and reason on one line."""
        return f"{self.where}: {self.why}"


class Draft:
    """A document in the making.

    Attributes:
        name: Name of the chart.
        lost: What could not be translated so far, in the order of the chart.
        data: Section ``data`` of the document; the other sections likewise.

    Args:
        is_drawing: True if the document is for a picture only. A guard of unknown meaning is then a
            parameter, which adds nothing to the picture; else it is free at every step.
    """

    def __init__(self, name: str, *, is_drawing: bool = False) -> None:
        self.name = name or "Chart"
        self._is_drawing = is_drawing
        self.lost: list[Loss] = []
        self.data: dict[str, Any] = {}
        self.parameters: dict[str, Any] = {}
        self.events: dict[str, dict[str, Any]] = {}
        self.guards: dict[str, str] = {}
        self.actions: dict[str, dict[str, Any]] = {}
        self.timers: dict[str, float] = {}
        self._states: dict[str, str] = {}
        self._event_names: dict[str, str] = {}
        self._words: dict[tuple[str, str], str] = {}
        self._free: set[str] = set()

    def lose(self, where: str, why: str) -> None:
        """Note that the part at *where* is lost."""
        self.lost.append(Loss(where, why))

    def _renamed(self, name: str, new: str) -> None:
        if new != name:
            self.lost.append(Loss(name, f"renamed to {new}", is_harmless=True))

    # ---- names -----------------------------------------------------------------------------
    def state(self, name: str, *, inside: str = "", key: str = "") -> str:
        """Return the id of a state.

        Args:
            name: Its name in the foreign chart.
            inside: Id of its parent, which tells it from a state of the same name elsewhere.
            key: What identifies it in the foreign chart; the name if empty.
        """
        key = key or name
        if key not in self._states:
            wanted = _identifier(name)
            taken = set(self._states.values())
            if wanted in taken and inside:
                wanted = f"{inside}_{wanted}"
            if inside and wanted in names_of_states():
                wanted = f"{inside}_{wanted}"
            self._states[key] = self._unused(wanted, lambda n: n in taken or is_the_librarys(n))
            self._renamed(name, self._states[key])
        return self._states[key]

    def has_state(self, key: str) -> bool:
        """Return True if the foreign chart has a state *key*."""
        return key in self._states

    def event(self, name: str, **declaration: Any) -> str:
        """Return the name of an event, which is declared on first use."""
        if name not in self._event_names:
            words = [_identifier(word) for word in name.split(".") if word] or ["unnamed"]
            taken = set(self._event_names.values())
            self._event_names[name] = self._unused(
                ".".join(words),
                lambda n: n in taken or n in RESERVED or is_the_librarys(n),
            )
            self._renamed(name, self._event_names[name])
        found = self._event_names[name]
        if not found.startswith(_DONE):
            self.events.setdefault(found, {}).update(declaration)
        return found

    def done(self, state: str) -> str:
        """Return the event that says that *state* has reached its final state."""
        return f"{_DONE}{state}"

    def word(self, kind: str, name: str) -> str:
        """Return the name of a guard, an action, a datum or a field, unused among all of them."""
        if (kind, name) not in self._words:
            taken = set(self._words.values())
            word = _identifier(name).lstrip("_") or "unnamed"
            if word.startswith((WAS, "in_")):  # the engine's own data are called so
                word = f"is_{word}"
            self._words[kind, name] = self._unused(
                f"{word}_" if iskeyword(word) else word,
                lambda n: n in taken or n in RESERVED or is_the_librarys(n),
            )
        return self._words[kind, name]

    def _unused(self, wanted: str, is_taken: Callable[[str], bool]) -> str:
        found, number = wanted, 1
        while is_taken(found):
            number += 1
            found = f"{wanted}_{number}"
        return found

    # ---- declarations ----------------------------------------------------------------------
    def datum(self, name: str, initial: Value, values: Iterable[Value] = ()) -> str:
        """Declare a datum and return its name."""
        found = self.word("data", name)
        self.data[found] = {"initial": initial}
        if values:
            self.data[found]["values"] = list(values)
        return found

    def free_guard(self, name: str) -> str:
        """Declare a guard of unknown meaning and return its name."""
        found = self.word("guard", name)
        self._free.add(found)
        self.guards.setdefault(found, "True")
        return found

    def guard(self, name: str, expression: str) -> str:
        """Declare a guard and return its name; a second meaning gets a name of its own."""
        found = self.word("guard", name)
        if self.guards.setdefault(found, expression) != expression:
            return self.guard(f"{name}_{len(self.guards)}", expression)
        return found

    def action(self, name: str, **declaration: Any) -> str:
        """Declare an action and return its name; without a declaration it notifies listeners."""
        found = self.word("action", name)
        wanted = declaration or {"do": {"effect": "notify", "name": name}}
        if self.actions.setdefault(found, wanted) != wanted:
            return self.action(f"{name}_{len(self.actions)}", **declaration)
        return found

    def activity(self, name: str, point: str = "") -> tuple[str, str]:
        """Declare the actions that start and cancel an activity and return their names."""
        start = {"effect": "activity.start", "activity": name} | ({"point": point} if point else {})
        return (
            self.action(f"start_{name}_{point}" if point else f"start_{name}", do=start),
            self.action(f"cancel_{name}", do={"effect": "activity.cancel", "activity": name}),
        )

    def timer(self, name: str) -> tuple[str, str]:
        """Declare the actions that start and cancel a timer and return their names."""
        return (
            self.action(f"start_{name}", do={"effect": "timer.start", "timer": name}),
            self.action(f"cancel_{name}", do={"effect": "timer.cancel", "timer": name}),
        )

    # ---- the result ------------------------------------------------------------------------
    def document(
        self, states: dict[str, Any], *, ignores_unhandled: bool = False, **sections: Any
    ) -> Document:
        """Return the document.

        Args:
            states: Section ``chart.states``.
            ignores_unhandled: True if an event without a transition has no effect; else it is an
                error, as in every document.
            sections: More sections, which add to those declared.

        Raises:
            ChartError: The result is no valid document.
        """
        self._drop_unreachable(states)
        if ignores_unhandled:
            self._ignore_unhandled(states)
        self._bind_free_guards(states)
        self._drop_unused(states)
        raw: dict[str, Any] = {"format": FORMAT, "name": self.name}
        for key in ("data", "parameters", "events", "timers", "guards", "actions"):
            if merged := {**getattr(self, key), **(sections.pop(key, None) or {})}:
                raw[key] = merged
        raw |= {key: value for key, value in sections.items() if value}
        return from_mapping({**raw, "chart": {"name": self.name, "states": states}})

    def _drop_unreachable(self, states: dict[str, Any]) -> None:
        """Drop states that no transition enters, which a document may not have."""
        while True:
            document = build({"format": FORMAT, "chart": {"name": self.name, "states": states}})
            found = list(unreachable_states(document))
            for name, above in found:
                self.lose(name, "no transition leads to it")
                inner = states
                for outer in above:
                    inner = inner[outer]["states"]
                del inner[name]
            if not found:
                return

    def _drop_unused(self, states: Mapping[str, Any]) -> None:
        """Drop declarations that only served to make others."""
        used: set[str] = set()
        for _, body, _ in walk(states):
            items = [*body.get("transitions", ())]
            for history in body.get("history", {}).values():
                items += history["transitions"]
            for item in (body, *items):
                used.update(split_words(item.get("event")))
                for key in ("enter", "exit", "cond", "unless", "on", "before", "after"):
                    used.update(as_list(item.get(key)))
        self.actions = {key: value for key, value in self.actions.items() if key in used}
        self.guards = {key: value for key, value in self.guards.items() if key in used}
        raised = {name for action in self.actions.values() for name in as_list(action.get("raise"))}
        self.events = {k: value for k, value in self.events.items() if k in used | raised}

    def _ignore_unhandled(self, states: dict[str, Any]) -> None:
        """Let each top-level state take, without effect, every event that nothing else takes.

        In a drawing, a state that only guards leave takes them too: a document may not have it.
        """
        everything = " ".join(self.events)
        for name, body, _ in walk(states):
            assert isinstance(body, dict)
            items = body.get("transitions", ())
            is_waiting = items and not any(item.get("event") for item in items)
            takes = name in states or (is_waiting and self._is_drawing)
            if takes and everything and not body.get("final"):
                body["transitions"] = [*items, {"event": everything}]

    def _bind_free_guards(self, states: Mapping[str, Any]) -> None:
        """Let each free guard read a field of its events, or of the last event.

        A transition without an event, or on an event that the chart itself raises, has no fields.
        Its guard reads a datum, which every transition with an event sets from a field.
        """
        if self._is_drawing:
            for guard in sorted(self._free):
                self.guards[guard] = self.word("parameter", f"{guard}_holds")
                self.parameters[self.guards[guard]] = {"values": [False, True]}
            return
        transitions = [item for _, body, _ in walk(states) for item in body.get("transitions", ())]
        remembered = {
            guard
            for item in transitions
            if not set(split_words(item.get("event"))) & set(self.events)
            for guard in self._free_of(item)
        }
        fields = {guard: self.word("field", f"{guard}_holds") for guard in sorted(self._free)}
        for guard in remembered:
            self._remember(guard, fields[guard])
        for guard in self._free - remembered:
            self.guards[guard] = fields[guard]
        for item in transitions:
            events = [name for name in split_words(item.get("event")) if name in self.events]
            if not events:
                continue
            chosen = [f"choose_{guard}" for guard in sorted(remembered)]
            if chosen:
                item["on"] = [
                    *(self.word("action", name) for name in chosen),
                    *as_list(item.get("on")),
                ]
            needed = remembered | set(self._free_of(item))
            for name in events:
                data = self.events[name].setdefault("data", {})
                data.update({fields[guard]: [False, True] for guard in sorted(needed)})
                if not data:
                    del self.events[name]["data"]

    def _free_of(self, item: Mapping[str, Any]) -> list[str]:
        used = [*as_list(item.get("cond")), *as_list(item.get("unless"))]
        return [name for name in used if name in self._free]

    def _remember(self, guard: str, field: str) -> None:
        first = self.word("parameter", f"{guard}_at_start")
        self.parameters[first] = {"values": [False, True]}
        now = self.datum(f"{guard}_now", "start", ("start", "yes", "no"))
        self.guards[guard] = f"{now} == 'yes' or ({now} == 'start' and {first})"
        self.action(f"choose_{guard}", set={now: f"'yes' if {field} else 'no'"})


def refuse_losses(draft: Draft, lost: list[Loss] | None) -> None:
    """Hand the losses of *draft* over to *lost*, or raise an error that names all of them.

    Raises:
        ChartError: Something is lost and *lost* is None; the notes of the error list everything.
    """
    if lost is not None:
        lost += draft.lost
        return
    losses = [loss for loss in draft.lost if not loss.is_harmless]
    if losses:
        more = f" (and {len(losses) - 1} more)" if len(losses) > 1 else ""
        error = ChartError(
            f"{draft.name}.{losses[0].where}",
            losses[0].why + more,
            problems=tuple(ChartError(loss.where, loss.why) for loss in losses),
        )
        error.add_note("\n".join(map(str, losses)))
        raise error


def _identifier(name: str) -> str:
    """Return *name* as an identifier: ``wait-for user`` becomes ``wait_for_user``."""
    word = name if name.isidentifier() else re.sub(r"\W+", "_", name).strip("_") or "unnamed"
    if word[0].isdigit():
        word = f"n{word}"
    return word
