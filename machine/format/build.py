"""Typed document of a raw one whose shape was checked and whose short forms were expanded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..document import (
    ActionDecl,
    Always,
    Datum,
    Document,
    EventDecl,
    Pair,
    Process,
    Promises,
    Requests,
    as_list,
)
from ..effects import KINDS, Effect
from .durations import seconds_of
from .generated_names import is_generated
from .state_tests import with_state_tests

_ALWAYS_SETS = ("to", "never", "asks", "spares", "live", "dead", "into")
_NOTE_IN = "note_in_"


def build(raw: Mapping[str, Any]) -> Document:
    """Return the document of *raw*.

    Args:
        raw: A whole document without short forms; what is missing gets its default.
    """
    chart = raw.get("chart") or {}

    def section(key: str) -> dict[str, Any]:
        return dict(raw.get(key) or {})

    guards = {name: str(text) for name, text in section("guards").items()}
    noted = {n[len(_NOTE_IN) :] for n in section("actions") if n.startswith(_NOTE_IN)}
    return Document(
        name=str(raw.get("name") or chart.get("name") or "Chart"),
        description=str(raw.get("description") or ""),
        data={name: _datum(body or {}) for name, body in section("data").items()},
        parameters={name: _datum(body or {}) for name, body in section("parameters").items()},
        events={name: _event(body or {}) for name, body in section("events").items()},
        timers={name: seconds_of(value) or 0.0 for name, value in section("timers").items()},
        guards=guards,
        guard_texts={
            name: with_state_tests(" ".join(text.split()), noted)
            for name, text in guards.items()
            if is_generated(name, text)
        },
        actions={name: _action(body or {}) for name, body in section("actions").items()},
        promises=_promises(section("promises")),
        notes=section("notes"),
        version=_word(raw.get("version")),
        payload=_word(raw.get("payload")),
        chart=chart,
        source=raw,
    )


def _word(raw: Any) -> str:
    return "" if raw is None else str(raw)


def _datum(fields: Mapping[str, Any]) -> Datum:
    values = tuple(as_list(fields.get("values"))) or None
    initial = fields.get("initial")
    if initial is None:
        initial = values[0] if values else 0
    return Datum(initial=initial, values=values)


def _event(fields: Mapping[str, Any]) -> EventDecl:
    return EventDecl(
        origin=fields.get("origin") or "user",
        of=fields.get("of") or "",
        on=fields.get("on") or "",
        data={
            name: tuple(as_list(domain)) or (0,)
            for name, domain in (fields.get("data") or {}).items()
        },
        payload=fields.get("payload") is True,
        description=str(fields.get("description") or ""),
    )


def _action(fields: Mapping[str, Any]) -> ActionDecl:
    when = fields.get("when")
    return ActionDecl(
        effects=tuple(_effect(item) for item in as_list(fields.get("do"))),
        assigns={name: str(text) for name, text in (fields.get("set") or {}).items()},
        when=None if when is None else str(when),
        raises=tuple(as_list(fields.get("raise"))),
        description=str(fields.get("description") or ""),
    )


def _effect(fields: Mapping[str, Any]) -> Effect:
    cls, _, _ = KINDS[fields["effect"]]
    return cls(**{key: value for key, value in fields.items() if key != "effect"})


def _names(fields: Mapping[str, Any], key: str) -> frozenset[str]:
    return frozenset(as_list(fields.get(key)))


def _promises(fields: Mapping[str, Any]) -> Promises:
    requests, process = fields.get("requests"), fields.get("process")
    sets = ("rest", "quiet", "serving", "unsure", "reliable", "patience")
    return Promises(
        **{key: _names(fields, key) for key in sets},
        pairs=tuple(
            Pair(
                begin=str(pair.get("begin") or ""),
                end=str(pair.get("end") or ""),
                by=_names(pair, "by"),
                unless=_names(pair, "unless"),
                also=_names(pair, "also"),
            )
            for pair in as_list(fields.get("pairs"))
        ),
        requests=Requests(
            **{key: str(requests.get(key) or "") for key in Requests.__dataclass_fields__}
        )
        if requests
        else None,
        process=Process(
            activity=str(process.get("activity") or ""),
            up=str(process.get("up") or ""),
            down=_names(process, "down"),
            needed_by=_names(process, "needed_by"),
            found=str(process.get("found") or ""),
        )
        if process
        else None,
        stopping=str(fields.get("stopping") or ""),
        always=tuple(_always(item) for item in as_list(fields.get("always"))),
    )


def _always(fields: Mapping[str, Any]) -> Always:
    def text(key: str) -> str | None:
        return None if fields.get(key) is None else str(fields[key])

    return Always(
        why=str(fields.get("why") or ""),
        events=_names(fields, "event"),
        before=_names(fields, "from"),
        inside=_names(fields, "in"),
        given=text("if"),
        then=text("then"),
        stays=fields.get("stays") is True,
        **{key: _names(fields, key) for key in _ALWAYS_SETS},
    )
