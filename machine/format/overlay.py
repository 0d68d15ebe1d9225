"""Overlays: changes that are merged into a chart document and checked with it.

An overlay has the sections of a document, each optional. Entries of ``data``, ``parameters``,
``events``, ``timers``, ``guards`` and ``actions`` are added or replaced; ``null`` removes one.
``promises`` are added. ``states`` are addressed by id, wherever the state is; a new one names its
parent with ``inside``. In a state, ``transitions``, ``enter`` and ``exit`` are appended, and
``transitions_before``, ``enter_before`` and ``exit_before`` are put first, where a transition has
priority; the short forms ``after``, ``invoke`` and ``ignores`` append too. ``remove_transitions``
names transitions to remove. ``null`` removes a state, or everything under a key of it.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

from ..document import Document, as_list, walk
from ..errors import ChartError
from .bounds import MAX_STATES, check_values
from .parse import from_mapping

_MAX_DEPTH = 20  # of states within states
_ENTRIES = ("data", "parameters", "events", "timers", "guards", "actions")
_SECTIONS = ("name", "version", "description", *_ENTRIES, "promises", "states")
_ADDED = ("rest", "quiet", "serving", "pairs", "unsure", "reliable", "patience", "always")
_REPLACED = ("requests", "process", "stopping")
_SINGLE = (
    "initial", "final", "parallel", "history", "after", "invoke", "ignores", "description", "tags",
)  # fmt: skip
_LISTS = ("transitions", "enter", "exit")
_STATE_KEYS = (
    "inside", "initial", "final", "parallel", "history", "transitions", "transitions_before",
    "remove_transitions", "enter", "enter_before", "exit", "exit_before", "after", "invoke",
    "ignores", "description", "tags",
)  # fmt: skip


def merge(document: Document, overlay: Mapping[str, Any]) -> Document:
    """Merge *overlay* into *document* and check the result.

    Args:
        document: The chart; it is not changed.
        overlay: Sections as YAML or JSON gives them.

    Raises:
        ChartError: The overlay is wrong, or the result is not a valid document; ``where`` is a path
            into the overlay if the overlay is the cause.
    """
    check_values(overlay, "overlay")
    sections = _mapping(overlay, "overlay", _SECTIONS)
    raw = copy.deepcopy(dict(document.source))
    for key in ("name", "version", "description"):
        if key in sections:
            raw[key] = sections[key]
    for key in _ENTRIES:
        entries = dict(raw.get(key) or {})
        for name, value in _mapping(sections.get(key), f"overlay.{key}").items():
            _put(entries, name, value, f"overlay.{key}.{name}")
        if entries or key in raw:
            raw[key] = entries
    raw["promises"] = _promises(raw.get("promises") or {}, sections.get("promises"))
    raw["chart"] = {**raw["chart"], "states": copy.deepcopy(dict(document.chart["states"]))}
    patches = _mapping(sections.get("states"), "overlay.states")
    if len(patches) > MAX_STATES:
        raise ChartError("overlay.states", f"expected at most {MAX_STATES} states, found more")
    for name, patch in patches.items():
        _state(raw["chart"]["states"], name, patch, f"overlay.states.{name}")
    _drop_unused(raw, sections)
    try:
        return from_mapping(raw)
    except ChartError as error:
        raise _blamed(error, sections, len(document.promises.always)) from error


def _drop_unused(raw: dict[str, Any], sections: Mapping[str, Any]) -> None:
    """Drop actions and guards of the document whose last use the overlay removed."""
    used = set(_words(raw["chart"]["states"]))
    for key in ("actions", "guards"):
        kept = used | set(sections.get(key) or {})
        if key in raw:
            raw[key] = {name: value for name, value in raw[key].items() if name in kept}


def _words(raw: Any) -> Iterator[str]:
    """Yield every text in *raw* that is not a key."""
    if isinstance(raw, str):
        yield raw
    elif isinstance(raw, Mapping):
        for value in raw.values():
            yield from _words(value)
    elif isinstance(raw, (list, tuple)):
        for value in raw:
            yield from _words(value)


def _mapping(raw: Any, where: str, known: tuple[str, ...] | None = None) -> dict[str, Any]:
    if raw is None:
        return {}
    if not isinstance(raw, Mapping):
        raise ChartError(where, f"expected a mapping, got {type(raw).__name__}")
    for key in raw:
        if not isinstance(key, str):
            raise ChartError(where, f"expected a text as key, got {key!r}")
        if known is not None and key not in known:
            raise ChartError(f"{where}.{key}", f"unknown key; known: {', '.join(known)}")
    return dict(raw)


def _put(entries: dict[str, Any], name: str, value: Any, where: str) -> None:
    if value is not None:
        entries[name] = copy.deepcopy(value)
    elif name in entries:
        del entries[name]
    else:
        raise ChartError(where, "there is nothing of this name to remove")


def _promises(base: Mapping[str, Any], patch: Any) -> dict[str, Any]:
    merged = dict(base)
    for key, value in _mapping(patch, "overlay.promises", (*_ADDED, *_REPLACED)).items():
        if value is None or key in _REPLACED:
            _put(merged, key, value, f"overlay.promises.{key}")
        else:
            merged[key] = [*as_list(merged.get(key)), *copy.deepcopy(as_list(value))]
    return merged


def _state(states: dict[str, Any], name: str, patch: Any, where: str) -> None:
    home = _home(states, name)
    if patch is None:
        if home is None:
            raise ChartError(where, "there is no state of this name to remove")
        del home[name]
        return
    fields = _mapping(patch, where, _STATE_KEYS)
    if home is None:
        home = _new_home(states, fields, where)
        home[name] = {}
    elif "inside" in fields:
        raise ChartError(f"{where}.inside", "expected for a new state only; this one exists")
    body = dict(home[name] or {})
    home[name] = body
    _remove_transitions(body, fields, where)
    for key in _LISTS:
        _extend(body, key, fields, where)
    for key in _SINGLE:
        if key in fields:
            _put(body, key, fields[key], f"{where}.{key}")


def _home(states: dict[str, Any], name: str) -> dict[str, Any] | None:
    """Return the mapping that holds state *name*, or None if there is no such state."""
    for mapping in _levels(states):
        if name in mapping:
            return mapping
    return None


def _levels(states: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield states
    for _, body, _ in walk(states):
        if body.get("states"):
            yield body["states"]


def _new_home(states: dict[str, Any], fields: Mapping[str, Any], where: str) -> dict[str, Any]:
    if "inside" not in fields:
        raise ChartError(where, "a new state needs `inside`: its parent, or null for none")
    parent = fields["inside"]
    if parent is None:
        return states
    home = _home(states, str(parent))
    if home is None:
        raise ChartError(f"{where}.inside", f"unknown state {parent!r}")
    above = next(above for each, _, above in walk(states) if each == parent)
    if len(above) >= _MAX_DEPTH:
        why = f"expected at most {_MAX_DEPTH} states inside each other, found more"
        raise ChartError(f"{where}.inside", why)
    body = home[parent] = dict(home[parent] or {})
    inner: dict[str, Any] = body.setdefault("states", {})
    return inner


def _remove_transitions(body: dict[str, Any], fields: Mapping[str, Any], where: str) -> None:
    for index, wanted in enumerate(as_list(fields.get("remove_transitions"))):
        at = f"{where}.remove_transitions[{index}]"
        pattern = _mapping(wanted, at)
        kept = [item for item in body.get("transitions") or () if not _matches(item, pattern)]
        if len(kept) == len(body.get("transitions") or ()):
            raise ChartError(at, "no transition of this state is like that")
        body["transitions"] = kept


def _matches(item: Mapping[str, Any], pattern: Mapping[str, Any]) -> bool:
    return all(as_list(item.get(key)) == as_list(value) for key, value in pattern.items())


def _extend(body: dict[str, Any], key: str, fields: Mapping[str, Any], where: str) -> None:
    if key in fields and fields[key] is None:
        if not body.pop(key, None):
            raise ChartError(f"{where}.{key}", "there is nothing under this key to remove")
        return
    merged = [
        *copy.deepcopy(as_list(fields.get(f"{key}_before"))),
        *as_list(body.get(key)),
        *copy.deepcopy(as_list(fields.get(key))),
    ]
    if merged:
        body[key] = merged


def _blamed(error: ChartError, sections: Mapping[str, Any], promised: int) -> ChartError:
    """Return *error* with a path into the overlay, if the overlay is its cause.

    Args:
        error: Error of the merged document.
        sections: Sections of the overlay.
        promised: Number of promises of the chart before the merge.
    """
    section, _, rest = error.where.partition(".")
    name = rest.partition(".")[0].partition("[")[0]
    where = f"overlay, laid over the chart: {error.where}"
    if section in (*_ENTRIES, "promises") and name in (sections.get(section) or {}):
        where = f"overlay.{error.where}"
        if name == "always":
            index, _, tail = rest.partition("[")[2].partition("]")
            own = int(index) - promised
            where = f"overlay.promises.always[{own}]{tail}" if own >= 0 else where
    elif removed := _removed(error.why, sections):
        where = f"overlay.{removed}"
    elif section == "chart":
        changed = [part for part in rest.split(".") if part.partition("[")[0] in _ids(sections)]
        if changed:
            _, _, tail = error.where.partition(f".{changed[-1]}")
            where = f"overlay.states.{changed[-1]}{tail}"
    blamed = ChartError(where, error.why, problems=error.problems)
    for note in getattr(error, "__notes__", ()):
        blamed.add_note(note)
    return blamed


def _removed(why: str, sections: Mapping[str, Any]) -> str:
    """Return the entry of the overlay that removes what *why* says is unknown, or nothing."""
    for key in ("events", "guards", "actions"):
        for name, value in (sections.get(key) or {}).items():
            if value is None and why.startswith(f"unknown {key.removesuffix('s')} {name!r}"):
                return f"{key}.{name}"
    return ""


def _ids(sections: Mapping[str, Any]) -> set[str]:
    return set(sections.get("states") or {})
