"""Change of the chart of a running instance: what its snapshot becomes in the new one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from ...machine import Effect, Machine, Snapshot, SnapshotError, StartActivity, StartTimer, Value
from ...machine.document import as_list
from ...machine.restoring import restorable
from .saving import after_effects
from .work import Post, Work

_NO_FIELDS: Mapping[str, Value] = {}


def replaced(
    old: Machine, new: Machine, snapshot: Snapshot, seconds: Mapping[str, float]
) -> Snapshot:
    """Return *snapshot* of an instance of *old* as *new* goes on with it.

    Migrations are used if some lead from its version to that of *new*; else everything in it has
    to exist in *new*. A timer or an activity that an active state starts on entry in *new* only is
    armed or started with it.

    Args:
        old: The chart of the instance.
        new: The chart that it goes on with.
        snapshot: State of the instance at this moment.
        seconds: Seconds of all timers of *new*.

    Raises:
        SnapshotError: Something in it does not fit *new*.
    """
    is_migrated = new.migrations.has_way(snapshot.version, new.version)
    fitting = restorable(new, snapshot, as_is=not is_migrated)
    timers = dict(fitting.timers)
    activities = {run.activity: run for run in fitting.activities}
    effects = [
        effect
        for effect in _started_anew(old, new, fitting)
        if not (isinstance(effect, StartTimer) and effect.timer in timers)
        and not (isinstance(effect, StartActivity) and effect.activity in activities)
    ]
    after_effects(
        effects, timers, activities, seconds, snapshot.taken_at,
        Post("", _NO_FIELDS, None, None, "replace"),
    )  # fmt: skip
    return replace(
        fitting,
        taken_at=snapshot.taken_at,
        timers=timers,
        activities=tuple(activities.values()),
    )


def change_work(
    work: Work, before: Snapshot, after: Snapshot, now: float, context: Callable[..., Any]
) -> None:  # fmt: skip
    """Start, arm and cancel what *after* has in another way than *before*.

    Args:
        work: Work of the instance.
        before: The instance as it was.
        after: The instance as it goes on; taken at the same time.
        now: That time on the loop's clock.
        context: (run, is_resumed=False) -> context of an activity.
    """
    for name in before.timers.keys() - after.timers.keys():
        work.disarm(name)
    for name, deadline in after.timers.items():
        if before.timers.get(name) != deadline:
            work.arm_at(name, deadline - before.taken_at + now)
    past = {run.activity for run in before.activities}
    for name in past - {run.activity for run in after.activities}:
        work.cancel(name)
    for run in after.activities:
        if run.activity in past:
            work.keep_as(run)
        else:
            work.start(context(run, is_resumed=False))


def _started_anew(old: Machine, new: Machine, snapshot: Snapshot) -> Iterator[Effect]:
    """Yield what the active states that both charts have start on entry in *new* only."""
    before, after = _entries(old), _entries(new)
    stepper = new.traced_stepper(**snapshot.parameters)
    state = snapshot.configuration, tuple(snapshot.data.values()), snapshot.memory
    for name in snapshot.configuration:
        if name not in before:
            continue  # it was renamed: a migration says what runs in it
        known = {effect for action in before[name] for effect in _starts(old, action)}
        for action in after[name]:
            wanted = set(_starts(new, action)) - known
            if not wanted:
                continue
            stepper.restore(*state)
            try:
                getattr(stepper.context, action)()  # it may depend on data
            except Exception as error:
                why = f"{action!r}, which {name!r} runs on entry, cannot run now: {error}"
                raise SnapshotError("configuration", why) from error
            yield from (effect for effect in stepper.context.out if effect in wanted)


def _entries(machine: Machine) -> dict[str, list[str]]:
    """Return state -> actions on entry, of all states."""
    return {
        name: [str(action) for action in as_list(definition.get("enter"))]
        for name, definition, _ in machine.document.states()
    }


def _starts(machine: Machine, action: str) -> Iterator[Effect]:
    for effect in machine.document.actions[action].effects:
        if isinstance(effect, (StartActivity, StartTimer)):
            yield effect
