"""Snapshot of an instance: everything that it needs to go on in another process, as a value.

A snapshot names the chart that it belongs to by name, version and digest. `Migrations` bring a
snapshot of an earlier version to the present one. Whatever does not fit is a `SnapshotError`, and
nothing is started.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, replace
from typing import Any, TypeAlias

from ..dataclass import dataclass, field
from .document import Configuration, Memory, Value
from .errors import SnapshotError
from .format.durations import MOST_S

FORMAT = "swapchart.snapshot/v1"
_MOST_DEPTH = 60
_PAYLOADS = ("payload", "event_payload")
_MOST_SECONDS = 2 * MOST_S  # of a deadline: the longest duration from now on
_MOST_COUNT = 1 << 53
_MOST_BITS = 14_000  # of an int that Python reads from a text


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningActivity:
    """An activity that was running.

    Attributes:
        activity: Name of the activity.
        point: Hook point of its effect, or empty.
        event: Event whose step started it; empty for the start of the chart.
        fields: Fields of that event.
        event_payload: Payload of that event, or None.
    """

    activity: str
    point: str = ""
    event: str = ""
    fields: Mapping[str, Value] = field(default_factory=dict)
    event_payload: Any = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingEvent:
    """An event that was posted inside a step and not processed yet.

    Attributes:
        event: Name of the event.
        fields: Its fields.
        payload: Its payload, or None.
        cause: Its sender; see `Step.cause`.
    """

    event: str
    fields: Mapping[str, Value] = field(default_factory=dict)
    payload: Any = None
    cause: str = "user"


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """State of an instance between two steps.

    Attributes:
        id: Id of the instance.
        chart: Name of the chart.
        version: Version of the chart; empty if it has none.
        digest: Digest of the chart; see `Machine.digest`.
        number: Number of steps taken.
        taken_at: Time of the snapshot, in seconds since 1970-01-01 UTC.
        configuration: All active states, in document order.
        data: Data by name.
        parameters: Parameters by name.
        memory: Memory of history states.
        timers: Armed timer -> deadline, in seconds since 1970-01-01 UTC.
        activities: Activities that were running.
        pending: Events that were posted and not processed, in order.
        payload: Payload of the instance.
    """

    id: str
    chart: str
    version: str = ""
    digest: str
    number: int = 0
    taken_at: float
    configuration: Configuration
    data: Mapping[str, Value] = field(default_factory=dict)
    parameters: Mapping[str, Value] = field(default_factory=dict)
    memory: Memory = ()
    timers: Mapping[str, float] = field(default_factory=dict)
    activities: tuple[RunningActivity, ...] = ()
    pending: tuple[PendingEvent, ...] = ()
    payload: Any = None

    def to_json(self, encode: Callable[[Any], Any] | None = None) -> dict[str, Any]:
        """Return the snapshot as a value of JSON.

        Args:
            encode: Turns each payload into a value of JSON; None takes payloads as they are.

        Raises:
            SnapshotError: A payload is no value of JSON, or *encode* failed.
        """

        def packed(payload: Any, where: str) -> Any:
            if encode is None or payload is None:
                value = payload
            else:
                try:
                    value = encode(payload)
                except Exception as error:
                    why = f"`encode` failed: {type(error).__name__}: {error}"
                    raise SnapshotError(where, why) from error
            _check_json(value, where)
            return value

        return {
            "format": FORMAT,
            "id": self.id,
            "chart": self.chart,
            "version": self.version,
            "digest": self.digest,
            "number": self.number,
            "taken_at": self.taken_at,
            "configuration": list(self.configuration),
            "data": dict(self.data),
            "parameters": dict(self.parameters),
            "memory": {history: list(states) for history, states in self.memory},
            "timers": dict(self.timers),
            "activities": [
                {
                    "activity": run.activity,
                    "point": run.point,
                    "event": run.event,
                    "fields": dict(run.fields),
                    "event_payload": packed(run.event_payload, f"activities.{run.activity}"),
                }
                for run in self.activities
            ],
            "pending": [
                {
                    "event": event.event,
                    "fields": dict(event.fields),
                    "payload": packed(event.payload, f"pending[{index}].payload"),
                    "cause": event.cause,
                }
                for index, event in enumerate(self.pending)
            ],
            "payload": packed(self.payload, "payload"),
        }

    @classmethod
    def from_json(cls, raw: Any, decode: Callable[[Any], Any] | None = None) -> Snapshot:
        """Return the snapshot that `to_json` gave.

        Args:
            raw: A value of JSON.
            decode: Undoes what ``encode`` did to each payload.

        Raises:
            SnapshotError: Something is missing, unknown, or of another type.
        """
        return _Reader(decode).snapshot(raw)


def _check_json(value: Any, where: str) -> None:
    """Check that *value* comes back from JSON as it is."""
    level = [value]
    for _ in range(_MOST_DEPTH):
        inner: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                if not all(type(key) is str for key in item):
                    raise SnapshotError(where, "expected texts as keys; give `encode`")
                inner += item.values()
            elif isinstance(item, list):
                inner += item
            elif item is not None and type(item) not in (str, int, float, bool):
                kind = type(item).__name__
                raise SnapshotError(where, f"expected a value of JSON, got {kind}; give `encode`")
            elif type(item) is float and not math.isfinite(item):
                raise SnapshotError(where, f"expected a value of JSON, got {item}")
            elif type(item) is int and item.bit_length() > _MOST_BITS:
                why = f"expected at most {_MOST_BITS} bits of a number, found {item.bit_length()}"
                raise SnapshotError(where, why)
        if not inner:
            return
        level = inner
    raise SnapshotError(where, f"expected at most {_MOST_DEPTH} levels of nesting, found more")


class _Reader:
    """Reads a snapshot from JSON."""

    def __init__(self, decode: Callable[[Any], Any] | None) -> None:
        self._decode = decode

    def snapshot(self, raw: Any) -> Snapshot:
        known = tuple(Snapshot.__dataclass_fields__)
        top = self.mapping(raw, "snapshot", ("format", *known))
        if top["format"] != FORMAT:
            raise SnapshotError("format", f"expected {FORMAT!r}, got {top['format']!r}")
        return Snapshot(
            **{key: self.text(top[key], key) for key in ("id", "chart", "version", "digest")},
            number=self.count(top["number"], "number"),
            taken_at=self.seconds(top["taken_at"], "taken_at"),
            configuration=self.texts(top["configuration"], "configuration"),
            data=self.values(top["data"], "data"),
            parameters=self.values(top["parameters"], "parameters"),
            memory=tuple(
                (history, self.texts(states, f"memory.{history}"))
                for history, states in sorted(self.mapping(top["memory"], "memory").items())
            ),
            timers={
                name: self.seconds(value, f"timers.{name}")
                for name, value in self.mapping(top["timers"], "timers").items()
            },
            activities=tuple(
                self.activity(item, f"activities[{index}]")
                for index, item in enumerate(self.items(top["activities"], "activities"))
            ),
            pending=tuple(
                self.event(item, f"pending[{index}]")
                for index, item in enumerate(self.items(top["pending"], "pending"))
            ),
            payload=self.payload(top["payload"]),
        )

    def activity(self, raw: Any, where: str) -> RunningActivity:
        entry = self.mapping(raw, where, tuple(RunningActivity.__dataclass_fields__))
        return RunningActivity(
            **{
                key: self.text(entry[key], f"{where}.{key}")
                for key in ("activity", "point", "event")
            },
            fields=self.values(entry["fields"], f"{where}.fields"),
            event_payload=self.payload(entry["event_payload"]),
        )

    def event(self, raw: Any, where: str) -> PendingEvent:
        entry = self.mapping(raw, where, tuple(PendingEvent.__dataclass_fields__))
        return PendingEvent(
            **{key: self.text(entry[key], f"{where}.{key}") for key in ("event", "cause")},
            fields=self.values(entry["fields"], f"{where}.fields"),
            payload=self.payload(entry["payload"]),
        )

    def payload(self, raw: Any) -> Any:
        return raw if self._decode is None or raw is None else self._decode(raw)

    def mapping(self, raw: Any, where: str, known: tuple[str, ...] = ()) -> dict[str, Any]:
        if not isinstance(raw, dict) or not all(isinstance(key, str) for key in raw):
            raise SnapshotError(where, f"expected a mapping with text keys, got {_kind(raw)}")
        for key in known:
            if key not in raw:
                raise SnapshotError(f"{where}.{key}", "is missing")
        for key in raw:
            if known and key not in known:
                raise SnapshotError(f"{where}.{key}", f"unknown key; known: {', '.join(known)}")
        return raw

    def items(self, raw: Any, where: str) -> list[Any]:
        if not isinstance(raw, list):
            raise SnapshotError(where, f"expected a list, got {_kind(raw)}")
        return raw

    def text(self, raw: Any, where: str) -> str:
        if not isinstance(raw, str):
            raise SnapshotError(where, f"expected a text, got {_kind(raw)}")
        return raw

    def texts(self, raw: Any, where: str) -> tuple[str, ...]:
        return tuple(self.text(item, where) for item in self.items(raw, where))

    def count(self, raw: Any, where: str) -> int:
        if type(raw) is not int or not 0 <= raw < _MOST_COUNT:
            raise SnapshotError(where, f"expected a number >= 0, got {_kind(raw)}")
        return raw

    def seconds(self, raw: Any, where: str) -> float:
        if type(raw) not in (int, float) or not -_MOST_SECONDS < raw < _MOST_SECONDS:  # not NaN
            raise SnapshotError(where, f"expected seconds, got {_kind(raw)}")
        return float(raw)

    def values(self, raw: Any, where: str) -> dict[str, Value]:
        found = self.mapping(raw, where)
        for name, value in found.items():
            if not isinstance(value, (str, int)):
                raise SnapshotError(
                    f"{where}.{name}", f"expected text, int or bool, got {_kind(value)}"
                )
        return found


def _kind(raw: Any) -> str:
    return repr(raw) if isinstance(raw, (str, int, float)) or raw is None else type(raw).__name__


def checked(snapshot: Snapshot) -> Snapshot:
    """Return *snapshot* with every value of its type; payloads may be anything.

    Raises:
        SnapshotError: It is no snapshot, or a value in it is of another type.
    """
    if not isinstance(snapshot, Snapshot):
        raise SnapshotError("snapshot", f"expected a Snapshot, got {_kind(snapshot)}")
    memory = snapshot.memory
    try:
        by_history: Any = {history: _unpacked(states) for history, states in memory}
    except (TypeError, ValueError):
        by_history = memory
    raw = {**_unpacked(snapshot), "format": FORMAT, "memory": by_history}
    found = Snapshot.from_json(raw)
    return replace(
        found,
        activities=tuple(
            replace(run, event_payload=given.event_payload)
            for run, given in zip(found.activities, snapshot.activities, strict=True)
        ),
        pending=tuple(
            replace(event, payload=given.payload)
            for event, given in zip(found.pending, snapshot.pending, strict=True)
        ),
        payload=snapshot.payload,
    )


def _unpacked(value: Any) -> Any:
    """Return *value* as JSON has it, without payloads."""
    if isinstance(value, (Snapshot, RunningActivity, PendingEvent)):
        return {
            part.name: None if part.name in _PAYLOADS else _unpacked(getattr(value, part.name))
            for part in fields(value)
        }
    if isinstance(value, Mapping):
        return dict(value)
    return list(map(_unpacked, value)) if isinstance(value, (list, tuple)) else value


#: Makes a snapshot of the next version of a chart out of one of the version before.
Migration: TypeAlias = Callable[[Snapshot], Snapshot]


class Migrations:
    """Ways from earlier versions of a chart to the present one."""

    def __init__(self) -> None:
        self._steps: dict[str, tuple[str, Migration]] = {}

    def add(self, before: str, after: str, function: Migration) -> None:
        """Add a way from version *before* to version *after*.

        Args:
            before: Version of the snapshots that *function* gets.
            after: Version of those that it returns; `migrate` sets it.
            function: Returns the changed snapshot, such as by ``dataclasses.replace``.

        Raises:
            ValueError: There is a way from *before* already, or it would lead in a circle.
        """
        if before in self._steps or before == after or before in self._versions(after):
            raise ValueError(f"a migration from {before!r} to {after!r} leads in a circle or twice")
        self._steps[before] = (after, function)

    def _versions(self, version: str) -> Iterator[str]:
        while version in self._steps:
            version = self._steps[version][0]
            yield version

    def has_way(self, before: str, after: str) -> bool:
        """Return True if migrations lead from version *before* to version *after*."""
        return after in self._versions(before)

    def migrate(self, snapshot: Snapshot, version: str) -> Snapshot:
        """Return *snapshot* at *version*.

        Raises:
            SnapshotError: No migrations lead there, or one of them failed.
        """
        first = snapshot.version
        while snapshot.version != version:
            if snapshot.version not in self._steps:
                found = f"expected {version!r}, got {first!r}"
                why = f"{found}; add a migration from {snapshot.version!r}"
                raise SnapshotError("version", why)
            after, function = self._steps[snapshot.version]
            name = f"the migration from {snapshot.version!r} to {after!r}"
            try:
                changed = replace(function(snapshot), version=after)
            except Exception as error:
                raise SnapshotError("version", f"{name} failed: {error}") from error
            try:
                changed = checked(changed)
            except SnapshotError as error:
                why = f"{error.why}; {name} returned it"
                raise SnapshotError(error.where, why) from error
            if changed.id != snapshot.id:
                why = f"expected {snapshot.id!r}, got {changed.id!r}; {name} must not change it"
                raise SnapshotError("id", why)
            snapshot = changed
        return snapshot
