"""Executable content of foreign charts as actions: assignments, events, timers, conditions."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import Any

from ..document import as_list
from ..effects import KINDS
from .draft import Draft
from .foreign_data import DataReader
from .foreign_expressions import UntranslatableError

#: ``type`` of an ``<invoke>`` that stands for one of our activities.
ACTIVITY = "urn:swapchart:activity"
_SECONDS = re.compile(r"(\d++(?:\.\d++)?|\.\d++)\s*+(ms|s)?")
_CHARTS = (None, "scxml", "http://www.w3.org/TR/scxml", "http://www.w3.org/TR/scxml/")
_TO_ITSELF = (None, "", "#_internal", "internal", "#_scxml_sessionid")


class ContentReader:
    """Reads the actions of one chart.

    Args:
        draft: The document in the making.
        data: Variables of the chart.
        contents: Every mapping with actions under ``on``, ``before`` or ``after``.
        invoked: Every invocation.
    """

    def __init__(
        self,
        draft: Draft,
        data: DataReader,
        contents: Iterable[Mapping[str, Any]],
        invoked: Iterable[Mapping[str, Any]],
    ) -> None:
        self._draft = draft
        self._data = data
        #: Id of a delayed event -> its timer, and event -> its timer.
        self._timers: dict[str, str] = {}
        self._of_timer: dict[str, str] = {}
        self._raised: set[str] = set()
        self._activities = {_activity(item) for item in invoked}
        self._external = False
        for item in contents:
            for key in ("before", "on", "after"):
                self._find_events(item.get(key))

    def _find_events(self, actions: Any) -> None:
        for kind, body in _nodes(actions):
            if kind == "raise":
                self._raised.add(body if isinstance(body, str) else str(body.get("event")))
            elif kind == "send" and _is_plain(body):
                event = body["event"]
                if body.get("target") in ("#_internal", "internal"):
                    self._raised.add(event)
                elif body.get("target") in _TO_ITSELF:
                    timer = self._of_timer.setdefault(event, str(body.get("id") or event))
                    self._timers[str(body.get("id") or event)] = timer

    def origin(self, event: str) -> dict[str, str]:
        """Return who sends *event*, as keys of its declaration."""
        if event in self._of_timer:
            return {"origin": "timer", "of": self._of_timer[event]}
        for kind, on in (("done.invoke.", "done"), ("error.invoke.", "error")):
            if event.startswith(kind) and event.removeprefix(kind) in self._activities:
                return {"origin": "activity", "of": event.removeprefix(kind), "on": on}
        return {"origin": "chart"} if event in self._raised else {}

    def actions(self, raw: Any, where: str, events: Sequence[str] = ()) -> list[str]:
        """Return the names of the actions in *raw*, which are declared.

        Args:
            raw: One action or a list: names of callbacks, and nodes of executable content.
            where: Path, for losses.
            events: Declared events whose fields the actions may read.
        """
        found: list[str] = []
        items = as_list(raw)
        for item, later in zip_longest(items, items[1:]):
            if isinstance(item, str):
                found.append(self._draft.action(item))
            elif _is_renewed(item, later):
                continue  # starting a timer cancels it first
            else:
                for kind, body in _nodes([item], deep=False):
                    found += self._node(kind, body, where, events)
        return found

    def _node(self, kind: str, body: Any, where: str, events: Sequence[str]) -> list[str]:
        match kind:
            case "if":
                return self._branches(body, where, events)
            case "log":
                return self._log(body)
            case "cancel":
                return self._cancel(body, where)
            case "send":
                return self._send(body, where)
            case "raise":
                event = body if isinstance(body, str) else str(body.get("event"))
                name = self._draft.event(event, origin="chart")
                return [self._draft.action(f"raise_{event}", **{"raise": name})]
            case "assign":
                sets = self._assignments([body], where, events)
                if sets:
                    location = next(iter(sets))
                    return [self._draft.action(f"set_{location}", set=sets)]
                return []
        self._draft.lose(where, f"<{kind}>: a document has no counterpart")
        return []

    def _assignments(
        self, bodies: Iterable[Mapping[str, Any]], where: str, events: Sequence[str]
    ) -> dict[str, str]:
        found: dict[str, str] = {}
        for body in bodies:
            location = str(body.get("location"))
            if not self._data.is_known(location):
                self._draft.lose(where, f"assignment to {location!r}, which is no variable")
                continue
            try:
                text = self._data.translated(str(body.get("expr")), events, target=location)
            except UntranslatableError as error:
                self._draft.lose(where, f"assignment {location} = {body.get('expr')}: {error}")
                continue
            found[self._draft.word("data", location)] = text
        return found

    def _log(self, body: Any) -> list[str]:
        label, expr = (
            (None, body) if isinstance(body, str) else (body.get("label"), body.get("expr"))
        )
        words = str(expr or "").strip("'\"").split()
        if label in KINDS:
            _, required, optional = KINDS[label]
            names = [*required, *optional][: len(words)]
            if set(required) <= set(names) and len(words) == len(names):
                if words and self._is_done_elsewhere(label, words[0]):
                    return []
                if label.startswith("timer."):  # its event is unknown
                    return [self._draft.action("_".join([label, *words]))]
                effect = {"effect": label, **dict(zip(names, words, strict=True))}
                return [self._draft.action("_".join([label, *words]), do=effect)]
        text = " ".join(str(part) for part in (label, expr) if part)
        return [self._draft.action(f"log_{text}", do={"effect": "notify", "name": text or "log"})]

    def _is_done_elsewhere(self, label: str, name: str) -> bool:
        """Return True for a line that only reports what a ``<send>`` or an ``<invoke>`` does."""
        if label.startswith("timer."):
            return name in self._timers
        return label.startswith("activity.") and name in self._activities

    def _send(self, body: Mapping[str, Any], where: str) -> list[str]:
        event, target = body.get("event"), body.get("target")
        if not _is_plain(body):
            self._draft.lose(where, "<send> with a computed event or to another processor")
            return []
        if body.get("params") or body.get("namelist") or body.get("content"):
            self._draft.lose(where, f"data that the chart sends with {event!r}")
        if target in ("#_internal", "internal"):
            return self._node("raise", event, where, ())
        if target not in _TO_ITSELF:
            self._draft.lose(where, f"the target {target!r} of {event!r}: listeners are notified")
            text = f"send {event} to {target}"
            return [self._draft.action(text, do={"effect": "notify", "name": text})]
        event = str(event)
        timer = self._of_timer[event]
        self._draft.event(event, origin="timer", of=timer)
        delay = body.get("delay", body.get("delayexpr")) or "0s"
        seconds = _seconds(str(delay))
        if "named" in body:
            pass  # the program gives the duration
        elif seconds is None:
            self._draft.lose(where, f"delay {delay!r} of {event!r}, which is computed")
        elif self._draft.timers.setdefault(timer, seconds) != seconds:
            self._draft.lose(where, f"a second delay of {event!r}, {delay}")
        return [self._draft.timer(timer)[0]]

    def _cancel(self, body: Mapping[str, Any], where: str) -> list[str]:
        wanted = str(body.get("sendid") or body.get("sendidexpr") or "").strip("'\"")
        if wanted not in self._timers:
            self._draft.lose(where, f"<cancel> of {wanted!r}, which no <send> has as its id")
            return []
        return [self._draft.timer(self._timers[wanted])[1]]

    def _branches(self, body: Mapping[str, Any], where: str, events: Sequence[str]) -> list[str]:
        """Return one action for each branch, which acts if the conditions before it failed."""
        branches = [(body.get("cond"), body.get("then"))]
        branches += [(item.get("cond"), item.get("then")) for item in as_list(body.get("elif"))]
        branches.append((None, body.get("else")))
        found: list[str] = []
        failed: list[str] = []
        try:
            conditions = [
                None if text is None else self._data.translated(str(text), events)
                for text, _ in branches
            ]
        except UntranslatableError as error:
            self._draft.lose(where, f"<if cond={body.get('cond')!r}>: {error}")
            return []
        changed: set[str] = set()
        for condition, (_, content) in zip(conditions, branches, strict=True):
            terms = [*failed, *([f"({condition})"] if condition is not None else [])]
            if condition is not None:
                failed.append(f"not ({condition})")
            if not content:
                continue
            declared = self._combined(content, where, events)
            if declared and declared.get("raise"):
                self._draft.lose(where, "<raise> inside of <if>: put the condition on a transition")
            elif declared is None or changed & set(re.findall(r"\w+", " ".join(terms))):
                self._draft.lose(where, "<if> whose content is nested or changes its own condition")
            elif declared:
                name = "_".join(["if", *declared.get("set", {}), str(len(self._draft.actions))])
                found.append(self._draft.action(name, when=" and ".join(terms), **declared))
                changed |= set(declared.get("set", {}))
        return found

    def _combined(self, content: Any, where: str, events: Sequence[str]) -> dict[str, Any] | None:
        """Return all of *content* as one declaration, or None if that would change its meaning."""
        declared: dict[str, Any] = {}
        for name in self.actions(content, where, events):
            action = self._draft.actions[name]
            if "when" in action:
                return None
            for key in ("do", "raise"):
                if key in action:
                    declared[key] = [*declared.get(key, ()), *as_list(action[key])]
            for target, text in action.get("set", {}).items():
                words = set(re.findall(r"\w+", text))
                if target in declared.get("set", {}) or words & set(declared.get("set", {})):
                    return None  # it reads what was assigned before it
                declared.setdefault("set", {})[target] = text
        return declared

    def invoked(self, item: Mapping[str, Any], where: str) -> tuple[str, str]:
        """Declare the activity of an invocation; return the actions that start and cancel it."""
        name = _activity(item)
        point = ""
        if item.get("type") == ACTIVITY:
            params = {p.get("name"): p.get("expr") for p in as_list(item.get("params"))}
            point = str(params.get("point") or "").strip("'\"")
        else:
            if item.get("type") in _CHARTS and {"src", "srcexpr", "content"} & set(item):
                self._draft.lose(where, f"the invoked chart {name!r}: an activity stands for it")
            for key in ("params", "namelist", "finalize", "autoforward"):
                if item.get(key):
                    self._draft.lose(where, f"{key} of the invocation {name!r}")
        return self._draft.activity(name, point)


def _activity(item: Mapping[str, Any]) -> str:
    if item.get("type") == ACTIVITY:
        return str(item.get("src"))
    return str(item.get("id") or item.get("src") or item.get("type") or "invoked")


def _nodes(actions: Any, *, deep: bool = True) -> Iterator[tuple[str, Any]]:
    """Yield kind and body of each node in *actions*, with those inside of conditions if *deep*."""
    for item in as_list(actions):
        if not isinstance(item, Mapping):
            continue
        for kind, body in item.items():
            if not isinstance(body, Mapping | str):
                continue
            yield str(kind), body
            if kind == "if" and deep and isinstance(body, Mapping):
                for branch in (body, *as_list(body.get("elif"))):
                    yield from _nodes(branch.get("then"))
                yield from _nodes(body.get("else"))


def _is_plain(body: Mapping[str, Any]) -> bool:
    """Return True if a ``<send>`` has a fixed event for a fixed target of the same sort."""
    return (
        isinstance(body.get("event"), str)
        and body.get("type") in (None, "scxml", "http://www.w3.org/TR/scxml/#SCXMLEventProcessor")
        and not body.get("typeexpr")
        and not body.get("targetexpr")
    )


def _is_renewed(item: Any, later: Any) -> bool:
    """Return True if *item* cancels the event that *later* sends."""
    match item, later:
        case {"cancel": {"sendid": str(canceled)}}, {"send": {"id": str(sent)}}:
            return canceled == sent
    return False


def _seconds(text: str) -> float | None:
    found = _SECONDS.fullmatch(text.strip().strip("'\""))
    if found is None:
        return None
    return float(found[1]) / (1000 if found[2] == "ms" else 1)
