"""Reader of SCXML: the structure and executable content that a document can express.

A document type declaration is refused, so no entity is ever expanded and no file read. An SCXML
file that `to_scxml` wrote holds the whole document in an element of our own; it is used if the
rest of the file still says the same.

Source: W3C SCXML 1.0, sections 3 (core), 4 (executable content), 5 (data) and 6 (communication).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any
from xml.etree import ElementTree as ET

from ..document import Document
from ..errors import ChartError
from ..format.bounds import require_text
from ..format.parse import from_mapping
from .draft import Loss
from .foreign_expressions import Language
from .native_reader import from_native_mapping
from .scxml_writer import CATALOG, NAMESPACE, to_scxml

_DEEPEST = 64
_STATES = ("state", "parallel", "final")
#: Attributes that are kept of each element of executable content.
_CONTENT = {
    "raise": ("event",), "log": ("label", "expr"), "cancel": ("sendid", "sendidexpr"),
    "assign": ("location", "expr"), "script": ("src",), "foreach": ("array", "item", "index"),
    "send": ("event", "eventexpr", "target", "targetexpr", "type", "typeexpr", "id",
             "idlocation", "delay", "delayexpr", "namelist"),
}  # fmt: skip


def from_scxml(text: str, *, lost: list[Loss] | None = None) -> Document:
    """Read a chart in SCXML.

    Args:
        text: The file.
        lost: List that receives what the document cannot express; None means that a loss is an
            error.

    Raises:
        ChartError: It is not SCXML, or something is lost and *lost* is None.
    """
    root = parse_xml(text)
    if _tag(root) != "scxml":
        raise ChartError("SCXML", f"expected <scxml> as the outermost element, got <{root.tag}>")
    found: list[Loss] = []
    catalog = root.find(f"{{{CATALOG}}}document")
    if catalog is not None:
        document = _embedded(root, catalog)
        if document is not None:
            return document
        found.append(Loss("document", "the embedded document, which no longer fits the states"))
    reader = _ScxmlReader(root, found)
    language: Language = "python" if root.get("datamodel") == "python" else "ecmascript"
    return from_native_mapping(reader.chart(), language, lost=lost, found=found)


def parse_xml(text: str) -> ET.Element:
    """Return the outermost element of *text*.

    Raises:
        ChartError: It is not XML, is too large or too deep, or has a document type declaration.
    """
    require_text("SCXML", text)
    try:
        root = ET.fromstring(text, parser=ET.XMLParser(target=_SafeBuilder()))
    except ET.ParseError as error:
        raise ChartError("SCXML", f"not XML: {error}") from error
    assert isinstance(root, ET.Element)
    return root


class _SafeBuilder(ET.TreeBuilder):
    """Builds the tree, and refuses what would make it grow or read a file."""

    def __init__(self) -> None:
        super().__init__()
        self._depth = 0

    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        """Refuse a document type declaration, without which there are no entities."""
        raise ChartError("SCXML", "expected no document type declaration, because of its entities")

    def start(self, tag: str, attrs: dict[str, str], /) -> ET.Element:
        """Open an element."""
        self._depth += 1
        if self._depth > _DEEPEST:
            raise ChartError("SCXML", f"expected at most {_DEEPEST} levels of nesting, found more")
        return super().start(tag, attrs)

    def end(self, tag: str, /) -> ET.Element:
        """Close an element."""
        self._depth -= 1
        return super().end(tag)


def _embedded(root: ET.Element, catalog: ET.Element) -> Document | None:
    """Return the document in *catalog*, or None if writing it does not give *root* again."""
    try:
        document = from_mapping(json.loads(catalog.text or ""))
        timers = json.loads(catalog.get("timers", "{}"))
        again = to_scxml(document, datamodel=root.get("datamodel", ""), timers=timers)
    except (ValueError, TypeError, AttributeError, ChartError):
        return None
    return document if list(_events(parse_xml(again))) == list(_events(root)) else None


def _events(root: ET.Element) -> Iterator[tuple[str, dict[str, str], str]]:
    for element in root.iter():
        yield element.tag, element.attrib, (element.text or "").strip()


def _tag(element: ET.Element) -> str:
    """Return the local name of an element of SCXML, or the full name of another one."""
    space, mark, name = element.tag[1:].partition("}")
    return name if mark and element.tag[0] == "{" and space == NAMESPACE else element.tag


class _ScxmlReader:
    """Makes a chart in the native dialect of one SCXML tree."""

    def __init__(self, root: ET.Element, lost: list[Loss]) -> None:
        self._root = root
        self._lost = lost
        self._ids: dict[ET.Element, str] = {}
        self._above: dict[str, tuple[str, ...]] = {}
        self._elements: dict[str, ET.Element] = {}
        self._name_states(root, ())
        self._initial: dict[str, str] = {}
        self._choose_initial()

    def _lose(self, where: str, why: str) -> None:
        self._lost.append(Loss(where, why))

    def _name_states(self, element: ET.Element, above: tuple[str, ...]) -> None:
        for child in _children(element):
            if _tag(child) in (*_STATES, "history"):
                name = child.get("id") or f"state_{len(self._ids) + 1}"
                if name in self._elements:
                    raise ChartError("SCXML", f"expected each id once, found {name!r} twice")
                self._ids[child], self._elements[name] = name, child
                self._above[name] = above
                self._name_states(child, (*above, name))

    # ---- initial states -----------------------------------------------------------------------
    def _choose_initial(self) -> None:
        """Find the initial child of each state; a target may be any state inside."""
        explicit = {
            name: targets
            for name, element in {"": self._root, **self._elements}.items()
            if (targets := self._initial_targets(name, element))
        }
        for name, element in {"": self._root, **self._elements}.items():
            inner = [child for child in _children(element) if _tag(child) in _STATES]
            if inner and _tag(element) != "parallel":
                self._initial[name] = self._ids[inner[0]]
        for name, targets in explicit.items():
            for target in targets:
                path = [*self._above[target], target]
                if name:
                    path = path[path.index(name) + 1 :] if name in path else []
                parent = name
                if _tag(self._elements[target]) == "history":
                    self._lose(name or "scxml", f"starts in the memory of {target!r}")
                    path = path[:-1]
                for child in path:
                    if _tag(self._elements.get(parent, self._root)) != "parallel":
                        if parent != name and self._initial.get(parent) != child:
                            self._lose(parent, f"starts in {child!r}, as {name or 'scxml'!r} asks")
                        self._initial[parent] = child
                    parent = child

    def _initial_targets(self, name: str, element: ET.Element) -> list[str]:
        found = (element.get("initial") or "").split()
        for child in _children(element):
            if _tag(child) == "initial":
                for transition in _children(child):
                    found = (transition.get("target") or "").split()
                    if len(transition):
                        self._lose(name, "actions of an initial transition")
        for target in found:
            if target not in self._above:
                raise ChartError(f"SCXML.{name or 'scxml'}.initial", f"unknown state {target!r}")
        return found

    # ---- the chart ------------------------------------------------------------------------------
    def chart(self) -> dict[str, Any]:
        """Return the chart in the native dialect."""
        states = self._states(self._root, "")
        if not states:
            raise ChartError("SCXML", "expected at least one state")
        for child in _children(self._root):
            if _tag(child) not in (*_STATES, "datamodel") and not child.tag.startswith(
                f"{{{CATALOG}}}"
            ):
                self._lose(_tag(child), "an element outside of the states")
        return {
            "name": self._root.get("name") or "Chart",
            "datamodel": [
                {"id": data.get("id"), "expr": data.get("expr", (data.text or "").strip() or None)}
                for model in self._root.iter()
                if _tag(model) == "datamodel"
                for data in _children(model)
            ],
            "states": states,
        }

    def _states(self, element: ET.Element, parent: str) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for child in _children(element):
            if _tag(child) in _STATES:
                body = self._state(child)
                if self._initial.get(parent) == self._ids[child]:
                    body["initial"] = True
                found[self._ids[child]] = body
        return found

    def _state(self, element: ET.Element) -> dict[str, Any]:
        name = self._ids[element]
        body: dict[str, Any] = {key: True for key in ("final", "parallel") if _tag(element) == key}
        for child in _children(element):
            match _tag(child):
                case "onentry":
                    body.setdefault("enter", []).extend(self._content(child, name))
                case "onexit":
                    body.setdefault("exit", []).extend(self._content(child, name))
                case "transition":
                    body.setdefault("transitions", []).append(self._transition(child, name))
                case "invoke":
                    body.setdefault("invoke", []).append(self._invoke(child))
                case "history":
                    body.setdefault("history", {})[self._ids[child]] = {
                        "type": child.get("type", "shallow"),
                        "transitions": [
                            self._transition(item, name)
                            for item in _children(child)
                            if _tag(item) == "transition"
                        ],
                    }
                case "state" | "parallel" | "final" | "initial" | "datamodel":
                    pass
                case other:
                    self._lose(f"{name}.{other}", "a document has no place for it")
        if states := self._states(element, name):
            body["states"] = states
        return body

    def _transition(self, element: ET.Element, where: str) -> dict[str, Any]:
        found: dict[str, Any] = {
            key: element.get(key) for key in ("event", "cond", "target") if element.get(key)
        }
        if element.get("type") == "internal":
            found["internal"] = True
        if content := self._content(element, where):
            found["on"] = content
        return found

    def _invoke(self, element: ET.Element) -> dict[str, Any]:
        found: dict[str, Any] = dict(element.attrib)
        for child in _children(element):
            if _tag(child) == "param":
                found.setdefault("params", []).append(dict(child.attrib))
            else:
                found[_tag(child)] = "present"
        if found.get("autoforward") == "false":
            del found["autoforward"]
        return found

    def _content(self, element: ET.Element, where: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        for child in _children(element):
            tag = _tag(child)
            if tag == "if":
                found.append({"if": self._if(child, where)})
            elif tag in _CONTENT:
                body: dict[str, Any] = {
                    key: child.get(key) for key in _CONTENT[tag] if child.get(key) is not None
                }
                if tag == "assign" and "expr" not in body:
                    body["expr"] = (child.text or "").strip()
                if tag == "send" and len(child):
                    body["content"] = "present"
                found.append({tag: body})
            else:
                self._lose(where, f"<{tag}>: a document has no counterpart")
        return found

    def _if(self, element: ET.Element, where: str) -> dict[str, Any]:
        parts: list[tuple[str, Mapping[str, str], ET.Element]] = []
        for child in [element, *_children(element)]:
            if _tag(child) in ("if", "elseif", "else") and (
                child is element or _tag(child) != "if"
            ):
                parts.append((_tag(child), child.attrib, ET.Element("block")))
            else:
                parts[-1][2].append(child)
        found: dict[str, Any] = {"cond": element.get("cond"), "elif": []}
        for tag, attributes, block in parts:
            content = self._content(block, where)
            if tag == "if":
                found["then"] = content
            elif tag == "elseif":
                found["elif"].append({"cond": attributes.get("cond"), "then": content})
            else:
                found["else"] = content
        return found


def _children(element: ET.Element) -> Iterator[ET.Element]:
    """Yield the elements directly inside, without comments."""
    return (child for child in element if isinstance(child.tag, str))
