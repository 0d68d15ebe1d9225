"""Bodies that describe transitions, past and present, and the hooks that ran meanwhile."""

from __future__ import annotations

from typing import Literal, TypeAlias

from .base import Body, Part

#: How a start went: ``lost`` means that the proxy ended before it, ``left`` that it left the server
#: running for the next proxy.
StartOutcome: TypeAlias = Literal[
    "starting", "running", "stopping", "stopped", "failed", "lost", "left"
]


class HookRun(Part, kw_only=True):
    """Result of one hook action, as the journal keeps it.

    Attributes:
        outcome: ``ok``, ``failed``, ``timeout`` or ``cancelled``.
        detail: What went wrong; empty if nothing did.
        seconds: Duration of all attempts and pauses in seconds.
        attempts: Number of attempts, >= 1.
        output: End of the output of its command.
    """

    point: str
    action: str
    outcome: str
    detail: str
    seconds: float
    attempts: int
    output: str = ""


class TransitionRow(Part, kw_only=True):
    """A past transition.

    Attributes:
        at: Wall clock; seconds since 1970.
        configuration: Active states afterwards, outermost first, separated by dots.
        seconds: How long the source state lasted, in seconds.
        exit_code: Exit code of the server, if its end caused the transition and it is known.
        exit_signal: Signal that ended the server, likewise.
        request_id: X-Request-ID of the request that the transition was for; empty for none.
        node: Node of the server; empty if there was none, or it is not known.
        swap_id: The swap that it was part of; empty for none.
        swap_cause: Who began that swap, such as ``request``, ``unload`` or ``idle``.
        run: Run of the proxy; the numbers of incarnations begin anew in each.
    """

    id: int
    at: float
    service: str
    incarnation: int
    event: str
    cause: str
    source: str
    target: str
    configuration: str
    seconds: float
    pid: int | None
    exit_code: int | None
    exit_signal: int | None
    hooks: list[HookRun]
    request_id: str
    node: str
    swap_id: str
    swap_cause: str
    run: str


class History(Body, kw_only=True):
    """Last transitions of a model, the newest first."""

    model: str
    data: list[TransitionRow]


class Start(Part, kw_only=True):
    """One start of a model and the run of its server that followed.

    Attributes:
        id: Names it in ``start`` of ``/logs/stream/MODEL``.
        number: Its incarnation.
        at: Wall clock; seconds since 1970.
        swap_id: The swap that it was part of; empty for none.
        swap_cause: Who began that swap, such as ``request``, ``unload`` or ``idle``.
        request_id: X-Request-ID of the request that it was for; empty for none.
        is_adopted: An earlier proxy had left the server running.
        cause: Why it began, in words.
        ready_s: Seconds until the model was ready; null if it never was.
        until: When it ended; seconds since 1970, null while it lasts.
        why: Why it ended, or is ending; empty while it lasts.
        transitions: Its transitions, the oldest first.
        left_out: Number of transitions that are left out after the first one.
        log_bytes: Size of its log; null if no part of it is known, as after a restart of the proxy.
        kept_log_bytes: Number of its last bytes that are kept.
    """

    id: str
    number: int
    at: float
    outcome: StartOutcome
    swap_id: str
    swap_cause: str
    request_id: str
    is_adopted: bool
    cause: str
    ready_s: float | None
    until: float | None
    why: str
    transitions: list[TransitionRow]
    left_out: int
    log_bytes: int | None
    kept_log_bytes: int | None


class Starts(Body, kw_only=True):
    """Last starts of a model, the newest first."""

    model: str
    data: list[Start]


class HookSummary(Part, kw_only=True):
    """Result of one hook action, in the event ``transition``; ``seconds`` is its duration."""

    point: str
    action: str
    outcome: str
    seconds: float


class TransitionEvent(Part, kw_only=True):
    """A transition that has just happened, in the event ``transition``.

    Attributes:
        configuration: Active states afterwards, outermost first.
        seconds: How long the source state lasted, in seconds.
        exit: How the process ended, if its end caused the transition.
        request_id: X-Request-ID of the request that the transition is for; empty for none.
        node: Node of the process; empty if there is none, or it is not known.
        swap_id: The swap that it is part of; empty for none.
        swap_cause: Who began that swap, such as ``request``, ``unload`` or ``idle``.
    """

    model: str
    event: str
    cause: str
    source: str
    target: str
    configuration: list[str]
    seconds: float
    incarnation: int
    pid: int | None
    exit: str | None
    hooks: list[HookSummary]
    request_id: str
    node: str
    swap_id: str
    swap_cause: str
