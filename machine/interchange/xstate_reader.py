"""Reader of XState machines in JSON, versions 4 and 5.

Guards and actions are names without a meaning, unless `to_xstate` wrote the file: a guard may hold
or not, and an action notifies listeners. The delays of ``after`` become timers, and an invoked
actor becomes an activity. Functions cannot be in JSON, so nothing else is lost but what is listed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from ..document import Document, as_list
from ..errors import ChartError
from ..format.bounds import check_values, require_text
from ..format.parse import from_mapping
from .draft import Loss
from .foreign_shapes import check_xstate
from .native_reader import from_native_mapping
from .xstate_actions import action_nodes, guard_text
from .xstate_writer import META, to_xstate

_KEYS = frozenset(
    {
        "id", "key", "initial", "type", "history", "target", "on", "always", "after", "invoke",
        "onDone", "entry", "exit", "onEntry", "onExit", "states", "description", "tags", "meta",
        "context", "version", "order", "delimiter", "predictableActionArguments", "$schema",
        "strict", "preserveActionOrder", "tsTypes", "schema", "types",
    }
)  # fmt: skip
#: Keys that only version 4 has; in it, a transition to a state itself leaves the state.
_OLD = frozenset({"cond", "onEntry", "onExit", "internal", "in", "predictableActionArguments"})
_PREFIXES = {
    "xstate.done.state.": "done.state.", "xstate.done.actor.": "done.invoke.",
    "xstate.error.actor.": "error.invoke.", "error.platform.": "error.invoke.",
    "done.state.": "done.state.",
}  # fmt: skip
Path = tuple[str, ...]


def from_xstate(text: str, *, lost: list[Loss] | None = None) -> Document:
    """Read the configuration of an XState machine.

    Args:
        text: JSON.
        lost: List that receives what the document cannot express; None means that a loss is an
            error.

    Raises:
        ChartError: It is no such configuration, or something is lost and *lost* is None.
    """
    require_text("XState", text)
    try:
        raw = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ChartError("XState", f"not JSON: {error}") from error
    return from_xstate_mapping(raw, lost=lost)


def from_xstate_mapping(raw: Any, *, lost: list[Loss] | None = None) -> Document:
    """Read the configuration of an XState machine, as JSON gives it.

    Raises:
        ChartError: As for `from_xstate`.
    """
    check_values(raw, "XState")
    if not isinstance(raw, Mapping) or not isinstance(raw.get("states"), Mapping):
        raise ChartError("XState", "expected an object with the key `states`")
    check_xstate(raw)
    found: list[Loss] = []
    meta = raw.get("meta")
    if isinstance(meta, Mapping) and META in meta:
        document = _embedded(raw, meta[META])
        if document is not None:
            return document
        found.append(Loss("meta", "the embedded document, which no longer fits the states"))
    native = _XstateReader(raw, found).chart()
    return from_native_mapping(native, "ecmascript", lost=lost, found=found)


def _embedded(raw: Mapping[str, Any], whole: Any) -> Document | None:
    """Return the document in *whole*, or None if writing it does not give *raw* again."""
    try:
        document = from_mapping(whole["document"])
        again = json.loads(to_xstate(document, timers=whole.get("timers")))
    except (ChartError, TypeError, KeyError, AttributeError, ValueError):
        return None
    return document if again == raw else None


class _XstateReader:
    """Makes a chart in the native dialect of one configuration."""

    def __init__(self, raw: Mapping[str, Any], lost: list[Loss]) -> None:
        self._raw = raw
        self._lost = lost
        self._root = str(raw.get("id") or "machine")
        self._nodes: dict[Path, Mapping[str, Any]] = {}
        self._names: dict[Path, str] = {}
        self._ids: dict[str, Path] = {}
        self._is_old = False
        self._collect((), raw)
        self._sources = [
            str(item["src"])
            for node in self._nodes.values()
            for item in as_list(node.get("invoke"))
            if isinstance(item, Mapping) and isinstance(item.get("src"), str)
        ]

    def _lose(self, where: str, why: str) -> None:
        self._lost.append(Loss(where, why))

    def _collect(self, path: Path, node: Any) -> None:
        if not isinstance(node, Mapping):
            raise ChartError(f"XState.{'.'.join(path)}", "expected an object")
        self._nodes[path] = node
        taken = set(self._names.values())
        name = path[-1] if path else self._root
        if name in taken and len(path) > 1:
            name = f"{path[-2]}_{name}"
        while name in taken:
            name += "_"
        if path and name != path[-1]:
            self._lost.append(Loss(".".join(path), f"renamed to {name}", is_harmless=True))
        self._names[path] = name
        self._ids[str(node.get("id") or ".".join((self._root, *path)))] = path
        self._is_old |= bool(_OLD & set(node)) or any(
            bool(_OLD & set(item)) or ("" in (node.get("on") or {}))
            for _, item in self._reactions(node)
        )
        for key, child in (node.get("states") or {}).items():
            self._collect((*path, str(key)), child or {})

    def _reactions(self, node: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
        on = node.get("on") or {}
        if isinstance(on, Mapping):
            yield from ((str(event), item) for event, raw in on.items() for item in _items(raw))

    # ---- targets ------------------------------------------------------------------------------
    def _target(self, source: Path, text: str, where: str) -> Path:
        if text.startswith("#"):
            words = text[1:].split(".")
            for end in range(len(words), 0, -1):
                base = self._ids.get(".".join(words[:end]))
                if base is not None and (*base, *words[end:]) in self._nodes:
                    return (*base, *words[end:])
        elif text.startswith("."):
            if (*source, *text[1:].split(".")) in self._nodes:
                return (*source, *text[1:].split("."))
        else:
            for base in (source[:-1], source):
                if (*base, *text.split(".")) in self._nodes:
                    return (*base, *text.split("."))
        raise ChartError(where, f"unknown target {text!r}")

    # ---- the chart ----------------------------------------------------------------------------
    def chart(self) -> dict[str, Any]:
        """Return the chart in the native dialect."""
        raw = self._raw
        states = self._children(())
        acts = ("on", "always", "after", "invoke", "entry", "exit", "onEntry", "onExit", "onDone")
        if raw.get("type") == "parallel" or any(raw.get(key) for key in acts):
            name = self._names[()]
            states = {name: {**self._state(()), "initial": True}}
            if any(body.get("final") for body in states[name]["states"].values()):
                states[f"{name}_done"] = {"final": True}
                ended = {"event": f"done.state.{name}", "target": f"{name}_done"}
                states[name].setdefault("transitions", []).append(ended)
        else:
            self._check_keys((), raw)
        return {"name": self._root, "datamodel": list(self._context()), "states": states}

    def _context(self) -> Iterator[dict[str, Any]]:
        context = self._raw.get("context")
        if context is not None and not isinstance(context, Mapping):
            self._lose("context", "a context that is no object")
            return
        for name, value in (context or {}).items():
            yield {"id": str(name), "expr": json.dumps(value)}

    def _check_keys(self, path: Path, node: Mapping[str, Any]) -> None:
        where = ".".join(path) or self._root
        for key in sorted(set(node) - _KEYS):
            self._lose(f"{where}.{key}", "a document has no place for it")
        if set(node.get("meta") or ()) - {META}:
            self._lose(f"{where}.meta", "a document has no place for it")

    def _children(self, path: Path) -> dict[str, Any]:
        node = self._nodes[path]
        initial = node.get("initial")
        if isinstance(initial, Mapping):
            if initial.get("actions"):
                self._lose(".".join(path) or self._root, "actions of an initial transition")
            initial = initial.get("target")
        first = str(initial or "").lstrip(".").split(".")[0]
        if first.startswith("#"):
            first = self._target(path, first, "initial")[len(path)]
        found = {}
        for key in node.get("states") or {}:
            child = (*path, str(key))
            if self._nodes[child].get("type") == "history" or "history" in self._nodes[child]:
                continue
            body = self._state(child)
            if key == first and node.get("type") != "parallel":
                body["initial"] = True
            found[self._names[child]] = body
        return found

    def _state(self, path: Path) -> dict[str, Any]:
        node = self._nodes[path]
        name, where = self._names[path], ".".join(path) or self._root
        self._check_keys(path, node)
        body: dict[str, Any] = {
            key: True for key in ("final", "parallel") if node.get("type") == key
        }
        for key in ("description", "tags"):
            if node.get(key) and path:
                body[key] = node[key]
        body["enter"] = self._actions(node, ("entry", "onEntry"), where)
        body["exit"] = self._actions(node, ("exit", "onExit"), where)
        transitions = [
            self._transition(path, item, event, f"{where}.on.{event}")
            for event, item in sorted(self._reactions(node), key=lambda pair: _breadth(pair[0]))
        ]
        transitions += [
            self._transition(path, item, "", f"{where}.always")
            for item in _items(node.get("always"))
        ]
        transitions += [
            self._transition(path, item, f"done.state.{name}", f"{where}.onDone")
            for item in _items(node.get("onDone"))
        ]
        transitions += self._delayed(path, body, where)
        transitions += self._invoked(path, body, where)
        body["transitions"] = transitions
        if node.get("states"):
            body["states"] = self._children(path)
            body["history"] = dict(self._histories(path))
        return {key: value for key, value in body.items() if value}

    def _histories(self, path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
        for key in self._nodes[path].get("states") or {}:
            child = (*path, str(key))
            node = self._nodes[child]
            if node.get("type") != "history" and "history" not in node:
                continue
            body: dict[str, Any] = {"type": "deep" if node.get("history") == "deep" else "shallow"}
            targets = [
                self._names[self._target(child, str(text), ".".join(child))]
                for text in as_list(node.get("target"))
            ]
            if targets:
                body["transitions"] = [{"target": " ".join(targets)}]
            yield self._names[child], body

    def _actions(self, node: Mapping[str, Any], keys: tuple[str, ...], where: str) -> list[Any]:
        return [
            made
            for key in keys
            for raw in as_list(node.get(key))
            for made in action_nodes(raw, f"{where}.{key}", self._lost)
        ]

    def _delayed(self, path: Path, body: dict[str, Any], where: str) -> Iterator[dict[str, Any]]:
        for delay, raw in (self._nodes[path].get("after") or {}).items():
            event = f"{self._names[path]}_after_{delay}"
            send = {"event": event, "id": event}
            send |= {"delay": f"{delay}ms"} if str(delay).isdigit() else {"named": str(delay)}
            body["enter"].append({"send": send})
            body["exit"].append({"cancel": {"sendid": event}})
            for item in _items(raw):
                yield self._transition(path, item, event, f"{where}.after.{delay}")

    def _invoked(self, path: Path, body: dict[str, Any], where: str) -> Iterator[dict[str, Any]]:
        for index, raw in enumerate(as_list(self._nodes[path].get("invoke"))):
            item = raw if isinstance(raw, Mapping) else {"src": raw}
            source = item.get("src")
            source = source.get("type") if isinstance(source, Mapping) else source
            name = str(item.get("id") or source or f"{self._names[path]}_{index}")
            if not item.get("id") and self._sources.count(str(source)) > 1:
                name = f"{self._names[path]}_{source}"
            if name == f"{self._names[path]}.{source}":
                name = str(source)  # as to_xstate writes it
            body.setdefault("invoke", []).append({"id": name})
            for key in sorted(set(item) - {"src", "id", "onDone", "onError"}):
                self._lose(f"{where}.invoke.{key}", f"{key} of the invoked {name!r}")
            for key, kind in (("onDone", "done.invoke"), ("onError", "error.invoke")):
                for reaction in _items(item.get(key)):
                    yield self._transition(path, reaction, f"{kind}.{name}", f"{where}.{key}")

    def _transition(
        self, source: Path, item: Mapping[str, Any], event: str, where: str
    ) -> dict[str, Any]:  # fmt: skip
        found: dict[str, Any] = {"event": self._event(event)} if event else {}
        for key in sorted(set(item) & {"in", "meta", "delay"}):
            self._lose(f"{where}.{key}", "a document has no counterpart")
        texts = [str(text) for text in as_list(item.get("target"))]
        targets = [self._target(source, text, where) for text in texts]
        is_internal = not item.get("reenter")
        if self._is_old:
            is_internal = bool(item.get("internal", texts and texts[0].startswith(".")))
        if targets:
            targets, is_internal = self._inside(source, targets, is_internal=is_internal)
        if targets:
            found["target"] = " ".join(self._names[target] for target in targets)
            found["internal"] = is_internal
        if text := guard_text(item.get("guard", item.get("cond")), where, self._lost):
            found["cond"] = text
        actions = self._actions(item, ("actions",), where)
        if actions:
            found["on"] = actions
        if isinstance(item.get("description"), str):
            found["description"] = item["description"]
        return found

    def _inside(
        self, source: Path, targets: list[Path], *, is_internal: bool
    ) -> tuple[list[Path], bool]:
        """Return the targets of a transition that may stay inside *source*, and whether it does.

        A state that is its own target and is not left enters its initial states anew.
        """
        if not is_internal or any(target[: len(source)] != source for target in targets):
            return targets, False
        if targets == [source]:
            node = self._nodes[source]
            inner = [(*source, str(key)) for key in node.get("states") or {}]
            if node.get("type") != "parallel":
                inner = [path for path in inner if path[-1] == node.get("initial")]
            return inner, True
        return targets, True

    def _event(self, event: str) -> str:
        for theirs, ours in _PREFIXES.items():
            if event.startswith(theirs):
                name = event.removeprefix(theirs)
                if ours == "done.state." and name in self._ids:
                    name = self._names[self._ids[name]]
                return ours + name
        return event.replace(" ", "_") or event


def _items(raw: Any) -> list[Mapping[str, Any]]:
    """Return the transitions in *raw*: a target, an object, or a list of them."""
    items = raw if isinstance(raw, list) else [raw] if raw is not None else []
    return [item if isinstance(item, Mapping) else {"target": item} for item in items]


def _breadth(event: str) -> tuple[bool, int]:
    """Return a key that sorts exact events before wildcards, and broad wildcards last."""
    return event.endswith("*"), -len(event)
