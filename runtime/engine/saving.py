"""Snapshots of instances: what is kept before a step acts, and how it goes on later."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal, TypeAlias

from ...machine import (
    CancelActivity,
    CancelTimer,
    Effect,
    PendingEvent,
    RunningActivity,
    Snapshot,
    StartActivity,
    StartTimer,
)
from .actions import ActivityContext
from .work import Post

#: When timers of a resumed instance fire: ``deadline`` at the time they had, at once if that has
#: passed; ``remaining`` after the time that was left; ``restart`` after their whole time.
TimerPolicy: TypeAlias = Literal["deadline", "remaining", "restart"]
#: What becomes of activities that ran: ``restart`` runs them again, ``fail`` posts the events of
#: their failures.
ActivityPolicy: TypeAlias = Literal["restart", "fail"]


def after_effects(
    effects: Iterable[Effect], timers: dict[str, float],
    activities: dict[str, RunningActivity], seconds: Mapping[str, float], now: float,
    cause: Post,
) -> None:  # fmt: skip
    """Change *timers* and *activities* as *effects* will, without performing anything.

    Args:
        effects: Effects of a step.
        timers: Armed timer -> deadline, in seconds on the clock of *now*.
        activities: Running activities by name.
        seconds: Seconds of all timers.
        now: Time of the step.
        cause: Event of the step.
    """
    for effect in effects:
        match effect:
            case StartTimer(timer=name):
                timers[name] = now + seconds[name]
            case CancelTimer(timer=name):
                timers.pop(name, None)
            case StartActivity(activity=name, point=point):
                activities[name] = RunningActivity(
                    activity=name, point=point, event=cause.event, fields=cause.fields,
                    event_payload=cause.payload,
                )  # fmt: skip
            case CancelActivity(activity=name):
                activities.pop(name, None)


def kept(context: ActivityContext[Any]) -> RunningActivity:
    """Return what a snapshot keeps of a running activity."""
    return RunningActivity(
        activity=context.activity, point=context.point, event=context.event,
        fields=context.fields, event_payload=context.event_payload,
    )  # fmt: skip


def pending(posts: Iterable[Post]) -> tuple[PendingEvent, ...]:
    """Return the events of *posts*; answers of activities that were canceled are not among them."""
    return tuple(
        PendingEvent(event=post.event, fields=post.fields, payload=post.payload, cause=post.cause)
        for post in posts
        if post.source is None or not post.source.is_dead
    )


def deadlines(
    snapshot: Snapshot, policy: TimerPolicy, seconds: Mapping[str, float], wall: float, now: float
) -> dict[str, float]:
    """Return armed timer -> deadline on the loop's clock, earliest first.

    Args:
        snapshot: Of the instance.
        policy: When its timers fire.
        seconds: Seconds of all timers.
        wall: This instant in seconds since 1970-01-01 UTC.
        now: This instant on the loop's clock.
    """
    left = {
        name: {
            "deadline": deadline - wall,
            "remaining": max(deadline - snapshot.taken_at, 0.0),
            "restart": seconds[name],
        }[policy]
        for name, deadline in snapshot.timers.items()
    }
    return {name: now + left[name] for name in sorted(left, key=left.__getitem__)}
