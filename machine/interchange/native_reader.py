"""Reader of python-statemachine's own dialect in YAML and JSON.

The dialect has states, transitions and executable content as mappings. The readers of SCXML and of
XState make such a mapping of their charts, so this module alone knows what becomes of an
assignment, a delayed event or an invoked service.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from ..document import FORMAT, Document, as_list, split_words, walk
from ..errors import ChartError
from ..format.bounds import MAX_STATES, check_values
from ..format.parse import from_mapping, load_yaml
from .draft import Draft, Loss, refuse_losses
from .executable_content import ContentReader
from .foreign_data import DataReader
from .foreign_expressions import Language, UntranslatableError
from .foreign_shapes import check_native
from .native_writer import without_raises

#: Keys of a document that a chart in the native dialect does not have.
_STATE_KEYS = frozenset(
    {
        "initial",
        "final",
        "parallel",
        "enter",
        "exit",
        "transitions",
        "invoke",
        "states",
        "history",
        "description",
        "tags",
    }
)


def from_native(
    text: str, catalog: Mapping[str, Any] | None = None, *, lost: list[Loss] | None = None
) -> Document:
    """Read a chart in python-statemachine's dialect: its own files, or our export as ``native``.

    Args:
        text: YAML or JSON.
        catalog: Sections of a document that the dialect does not have, such as ``actions``. With a
            catalog, the chart has to be complete: every name is declared in it.
        lost: List that receives what the document cannot express; None means that a loss is an
            error.

    Raises:
        ChartError: It is no chart in this dialect, or something is lost and *lost* is None.
    """
    raw = load_yaml(text)
    if not isinstance(raw, Mapping) or not isinstance(raw.get("states"), Mapping):
        raise ChartError("native chart", "expected a mapping with the key `states`")
    if catalog is not None:
        name = {"name": raw["name"]} if raw.get("name") else {}
        states = without_raises(raw["states"], catalog.get("actions") or {})
        return from_mapping(
            {"format": FORMAT, **name, **catalog, "chart": {**raw, "states": states}}
        )
    return from_native_mapping(raw, "python", lost=lost)


def from_native_mapping(
    raw: Mapping[str, Any],
    language: Language,
    *,
    lost: list[Loss] | None = None,
    found: Iterable[Loss] = (),
) -> Document:
    """Make a document of a chart in the native dialect.

    Args:
        raw: The chart.
        language: Language of its expressions.
        lost: As for `from_native`.
        found: Losses that the reader of another format has found before.

    Raises:
        ChartError: As for `from_native`.
    """
    check_values(raw, "chart")
    if not raw["states"]:
        raise ChartError("states", "expected at least one state")
    check_native(raw["states"])
    draft = Draft(str(raw.get("name") or "Chart"))
    draft.lost += found
    reader = _NativeReader(raw, draft, language)
    states = reader.states(raw["states"])
    refuse_losses(draft, lost)
    return draft.document(states, ignores_unhandled=True)


class _NativeReader:
    """Reads one chart."""

    def __init__(self, raw: Mapping[str, Any], draft: Draft, language: Language) -> None:
        self._draft = draft
        self._raw_states: dict[str, Mapping[str, Any]] = {}
        self._inside: dict[str, frozenset[str]] = {}
        self._parents: dict[str, str] = {}
        for name, body, above in walk(raw["states"]):
            if not isinstance(body, Mapping):
                raise ChartError(f"states.{name}", "expected a mapping")
            self._declare(name, body, above)
        self._data = DataReader(draft, language)
        contents = list(self._every_content(raw["states"]))
        invoked = [i for body in self._raw_states.values() for i in as_list(body.get("invoke"))]
        self._content = ContentReader(draft, self._data, contents, invoked)
        self._data.declare(raw.get("datamodel"), contents)
        self._known = self._known_events()

    def _declare(self, name: str, body: Mapping[str, Any], above: tuple[str, ...]) -> None:
        if name in self._raw_states:
            raise ChartError(f"states.{name}", "expected each state id once")
        if len(self._raw_states) >= MAX_STATES:
            raise ChartError("states", f"expected at most {MAX_STATES} states, found more")
        self._raw_states[name] = body
        self._parents[name] = above[-1] if above else ""
        outer = self._draft.state(above[-1]) if above else ""
        here = self._draft.state(name, inside=outer)
        for history in body.get("history") or {}:
            self._draft.state(history, inside=here)
        self._inside[name] = frozenset(n for n, _, _ in walk(body.get("states") or {}))

    # ---- first pass: everything that is mentioned -------------------------------------------
    def _every_content(self, states: Mapping[str, Any]) -> Iterator[Any]:
        """Yield each transition and each block of actions, wherever it is."""
        for _, body, _ in walk(states):
            for key in ("enter", "exit"):
                yield {"on": body.get(key)}
            yield from _transitions(body)
            for history in (body.get("history") or {}).values():
                yield from _transitions(history or {})

    def _known_events(self) -> list[str]:
        """Return every event that the chart takes, sends or raises, without wildcards."""
        found: dict[str, None] = {}
        for body in self._raw_states.values():
            for item in _transitions(body):
                names = (_plain(word) for word in split_words(item.get("event")))
                found.update((name, None) for name in names if name)
        found.update((name, None) for name in self._data.sent)
        return list(found)

    # ---- second pass ------------------------------------------------------------------------
    def states(self, states: Mapping[str, Any]) -> dict[str, Any]:
        """Return the section ``states`` for *states*."""
        marked = [name for name, body in states.items() if (body or {}).get("initial")]
        if not marked:
            parent = self._parents.get(next(iter(states)), "")
            if not (self._raw_states.get(parent) or {}).get("parallel"):
                marked = [next(iter(states))]
        return {
            self._draft.state(name): self._state(name, body or {}, is_initial=name in marked[:1])
            for name, body in states.items()
        }

    def _state(self, name: str, raw: Mapping[str, Any], *, is_initial: bool) -> dict[str, Any]:
        for key in sorted(set(raw) - _STATE_KEYS):
            self._draft.lose(f"{name}.{key}", "a document has no place for it")
        inner = raw.get("states") or {}
        body: dict[str, Any] = {"initial": True} if is_initial else {}
        body |= {key: True for key in ("final", "parallel") if raw.get(key)}
        if raw.get("parallel") and not inner:
            del body["parallel"]
        enter = self._content.actions(raw.get("enter"), f"{name}.enter")
        leave = self._content.actions(raw.get("exit"), f"{name}.exit")
        for item in as_list(raw.get("invoke")):
            start, cancel = self._content.invoked(item, name)
            enter.append(start)
            leave.append(cancel)
        body |= {key: names for key, names in (("enter", enter), ("exit", leave)) if names}
        transitions = [
            found
            for index, item in enumerate(_transitions(raw))
            if (found := self._transition(name, item, f"{name}.transitions[{index}]")) is not None
        ]
        body |= {key: raw[key] for key in ("description", "tags") if raw.get(key)}
        if transitions and raw.get("final"):
            self._draft.lose(name, "transitions of a final state, which has ended")
        elif transitions:
            body["transitions"] = transitions
        if inner:
            body["states"] = self.states(inner)
        if raw.get("history"):
            body["history"] = {
                self._draft.state(key): self._history(name, key, value or {})
                for key, value in raw["history"].items()
            }
        return body

    def _history(self, parent: str, name: str, raw: Mapping[str, Any]) -> dict[str, Any]:
        kind = "deep" if raw.get("type") == "deep" else "shallow"
        found = [
            {key: value for key, value in item.items() if key in ("target", "on")}
            for raw_item in _transitions(raw)[:1]
            if (item := self._transition(name, raw_item, name)) is not None
        ]
        if not found:
            children = self._raw_states[parent].get("states") or {}
            marked = [child for child, body in children.items() if (body or {}).get("initial")]
            is_parallel = self._raw_states[parent].get("parallel")
            first = list(children) if is_parallel else (marked or list(children))[:1]
            found = [{"target": " ".join(map(self._draft.state, first))}]
        return {"type": kind, "transitions": found}

    def _transition(self, source: str, raw: Mapping[str, Any], where: str) -> dict[str, Any] | None:
        found: dict[str, Any] = {}
        if raw.get("initial"):
            if as_list(raw.get("on")):
                self._draft.lose(where, "actions of an initial transition")
            return None
        events = list(dict.fromkeys(self._events(raw, where)))
        if raw.get("event") and not events:
            self._draft.lose(where, f"no event of the chart matches {raw['event']!r}")
            return None
        if events:
            found["event"] = " ".join(events)
        targets = split_words(raw.get("target"))
        for target in targets:
            if not self._draft.has_state(target):
                raise ChartError(f"{where}.target", f"unknown state {target!r}")
        if targets:
            found["target"] = " ".join(map(self._draft.state, targets))
            if raw.get("internal") and set(targets) <= self._inside.get(source, frozenset()):
                found["internal"] = True
        elif not events and source in self._raw_states:
            self._draft.lose(where, "without event and target it would be taken for ever")
            return None
        # Fields come with events that are declared: not with done.state, and not with none at all.
        carriers = events if all(name in self._draft.events for name in events) else []
        for key in ("cond", "unless"):
            names = [self._guard(text, where, carriers) for text in as_list(raw.get(key))]
            if names:
                found[key] = names
        for key in ("before", "on", "after"):
            names = self._content.actions(raw.get(key), where, carriers)
            if names:
                found[key] = names
        if raw.get("description"):
            found["description"] = raw["description"]
        return found

    def _events(self, raw: Mapping[str, Any], where: str) -> Iterator[str]:
        """Yield the events that a transition takes; SCXML's descriptors match by whole tokens."""
        for word in split_words(raw.get("event")):
            plain = _plain(word)
            for name in self._known:
                if not plain or name == plain or name.startswith(f"{plain}."):
                    yield self._event(name)

    def _event(self, name: str) -> str:
        if name.startswith("error.") and not name.startswith("error.invoke."):
            self._draft.lose(name, "an event that the engine raises when something fails")
        done = name.removeprefix("done.state.")
        if done != name and self._draft.has_state(done):
            return self._draft.done(self._draft.state(done))
        return self._draft.event(name, **self._content.origin(name))

    def _guard(self, text: Any, where: str, events: Sequence[str]) -> str:
        if not isinstance(text, str):
            text = str(text).lower() if isinstance(text, bool) else str(text)
        if text.isidentifier() and not self._data.is_known(text) and text not in _LITERALS:
            return self._draft.free_guard(text)
        try:
            return self._draft.guard(text, self._data.translated(text, events))
        except UntranslatableError as error:
            self._draft.lose(where, f"guard {text!r}, which may hold or not from now on: {error}")
            return self._draft.free_guard(text)


_LITERALS = ("true", "false", "True", "False")


def _plain(descriptor: str) -> str:
    """Return an event descriptor without its wildcard; the empty text matches every event."""
    return descriptor.removesuffix("*").removesuffix(".")


def _transitions(body: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [item for item in body.get("transitions") or () if isinstance(item, Mapping)]
