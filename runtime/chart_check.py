"""Check of a chart before services run by it; the result is kept by the digest of the chart."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..machine import ChartError, Document
from ..machine.compiled import is_among
from ..machine.digest import proof_digest_of
from ..machine.document import EventDecl, Origin
from ..machine.effects import StartActivity
from ..machine.shipped import is_shipped
from .arguments import guess, require, require_document, require_report, require_seconds
from .errors import ConfigError
from .lifecycle_driver import chart_parameters
from .spec import ServiceSpec

if TYPE_CHECKING:
    from ..machine import Report

_passed: set[str] = set()

#: Events of the runtime's requests and commands; True for those that a chart must declare.
_OF_USERS = {
    "request": True, "abandon": True, "finish": True, "stop": True, "shutdown": True,
    "start": False, "kill": False, "give_way": False, "sleep": False,
}  # fmt: skip
#: Activity that the runtime can run -> events by which it ends.
_OF_ACTIVITIES: dict[str, tuple[str, ...]] = {
    "spawn": ("spawned", "spawn_failed"),
    "hooks": ("hooks_done", "hooks_failed"),
    "health": ("healthy",),
    "liveness": ("unhealthy",),
    "sweep": ("swept",),
    "settle": ("settled",),
    "announce": (),
    "terminate": (),
}
#: Fields that the runtime fills with true or false if the chart declares them.
_FIELDS = {"proc_exited": "abnormal", "spawn_failed": "permanent"}
#: States by which the scheduler and the callers of stops know the phase of a service.
_STATES = ("starting", "ready", "stopping", "shut_down")


def require_chart(where: str, chart: Document | None, checked: Report | None) -> None:
    """Check the arguments *chart* and *checked*, and the chart itself; see `require_checked`.

    Args:
        where: Name of the argument that holds the chart.
        chart: The chart; None means another one.
        checked: Report of `check` for it, or None.

    Raises:
        ConfigError: An argument has a wrong type, or there is a report without a chart.
        ChartError: The chart breaks a promise, or *checked* is that of another chart.
    """
    require_document(where, chart)
    require_report("checked", checked, chart)
    if chart is not None:
        require_checked(chart, checked)


def require_spec(spec: ServiceSpec, default: Document) -> None:
    """Check the chart of *spec*, and its parameters by the chart, which is *default* without one.

    Raises:
        ChartError: The chart breaks a promise, or the report is that of another one.
        ConfigError: The chart has no such parameter, or the value is not of its domain.
    """
    if spec.chart is not None:
        require_checked(spec.chart, spec.checked)
    document = spec.chart or default
    timers = {event.of for event in document.events.values() if event.origin == "timer"}
    for name, value in spec.parameters.items():
        where = f"{spec.name}.parameters.{name}"
        if name in document.parameters:
            continue
        known = [*document.parameters, *(f"{timer}_s" for timer in sorted(timers))]
        if not (name.endswith("_s") and name.removesuffix("_s") in timers):
            raise ConfigError(where, f"the chart has no such parameter{guess(name, known)}")
        require_seconds(where, value)
    for name, value in chart_parameters(spec, document).items():
        datum, is_own = document.parameters[name], name in spec.parameters
        where = f"{spec.name}.parameters.{name}" if is_own else f"{spec.name}.{name}"
        if datum.values is None:
            kind = type(datum.initial)
            require(where, value, type(value) is kind, f"a value of type {kind.__name__}")
        else:
            among = ", ".join(map(repr, datum.values))
            require(where, value, is_among(value, datum.values), f"one of {among}")


def require_names(document: Document) -> None:
    """Check that *document* has the names by which the runtime runs a service.

    A chart may lack other events that the runtime posts: these are skipped, and without ``kill``
    the process is killed directly; see `LifecycleDriver.tell`.

    Raises:
        ChartError: It lacks an event or a state, has an event with another sender, or starts an
            activity that the runtime does not know.
    """
    expected: dict[str, tuple[Origin, str]] = dict.fromkeys(_OF_USERS, ("user", ""))
    needed = {name for name, is_needed in _OF_USERS.items() if is_needed}
    for action, activity in _activities(document):
        if activity not in _OF_ACTIVITIES:
            why = f"a service has no activity {activity!r}; known: {', '.join(_OF_ACTIVITIES)}"
            raise ChartError(f"actions.{action}", why)
        expected.update((name, ("activity", activity)) for name in _OF_ACTIVITIES[activity])
        needed.update(_OF_ACTIVITIES[activity])
        if activity == "spawn":
            expected["proc_exited"] = ("process", "")
            needed.add("proc_exited")
    events = document.events
    missing = [
        f"`{name}: {{{_origin(*expected[name])}}}`"
        for name in expected
        if name in needed and name not in events
    ]
    states = {name for name, _, _ in document.states()}
    missing += [f"state `{name}`" for name in _STATES if name not in states]
    if missing:
        why = f"the chart of a service needs {', '.join(missing)}"
        raise ChartError("chart", f"{why}; change the shipped chart by `merge` to keep them")
    for name, (origin, of) in expected.items():
        if name in events:
            _check_event(name, events[name], origin, of)


def _activities(document: Document) -> list[tuple[str, str]]:
    """Return each action and an activity that it starts."""
    return [
        (name, effect.activity)
        for name, action in document.actions.items()
        for effect in action.effects
        if isinstance(effect, StartActivity)
    ]


def _check_event(name: str, event: EventDecl, origin: Origin, of: str) -> None:
    if (event.origin, event.of) != (origin, of):
        found = _origin(event.origin, event.of)
        raise ChartError(f"events.{name}", f"expected `{_origin(origin, of)}`, got `{found}`")
    field = _FIELDS.get(name, "")
    if field in event.data and not {True, False} <= set(event.data[field]):
        raise ChartError(f"events.{name}.data.{field}", "expected true and false among its values")


def _origin(origin: Origin, of: str) -> str:
    return f"origin: {origin}, of: {of}" if of else f"origin: {origin}"


def require_checked(document: Document, report: Report | None = None) -> None:
    """Check *document*, unless it is the shipped chart, was checked before, or *report* proves it.

    The check explores one set of parameters, which takes about 0.2 s for a changed lifecycle. A
    report of `check` without ``parameters`` proves all sets.

    Args:
        document: The chart.
        report: Result of `check` for this chart; None checks it here.

    Raises:
        ChartError: The chart breaks a promise, or *report* is that of another chart; the notes have
            the shortest sequence of events that leads there.
    """
    if is_shipped(document):
        return
    require_names(document)
    digest = proof_digest_of(document)
    if report is not None and report.digest != digest:
        raise ChartError("checked", f"expected the report of {document.name}, got another chart's")
    if report is None and digest in _passed:
        return
    if report is None:
        from ..machine import Bounds, check
        from ..machine.checking.explore import parameter_sets

        first = next(iter(parameter_sets(document, Bounds())))
        report = check(document, parameters=[first], stop_at_first=True)
    if not report.is_ok:
        found = report.findings[0]
        broken = ChartError("chart", f"{found.kind}: {found.sentence}")
        broken.add_note(str(found))
        raise broken
    _passed.add(digest)
