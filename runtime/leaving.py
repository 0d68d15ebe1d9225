"""Processes that outlive their supervisor: facts for the next one, and how to end them without.

The end without a supervisor has the hooks and the stop command as plain values, since the launcher
carries it out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from .adoption import RunFacts, digest_of_spec
from .hook_actions import HttpAction, RunAction
from .lifecycle import Lifecycle
from .pid_placeholder import fill_pid
from .ports import Ending, EndingStep, NodeProcess, ProcessHandle
from .scheduler import Scheduler
from .scheduling import ServiceEntry
from .service_state import ServiceState

_REASON = "no proxy adopted it"


def is_kept(lifecycle: Lifecycle) -> bool:
    """Return True if the process of *lifecycle* may outlive the supervisor."""
    process = lifecycle.process
    is_remembered = isinstance(process, NodeProcess) and process.is_remembered
    return is_remembered and lifecycle.state in ("ready", "asleep")


def detach_kept(lifecycles: Mapping[str, Lifecycle], scheduler: Scheduler) -> frozenset[str]:
    """Let go of each process that may outlive the supervisor; return the names of its services."""
    left = set()
    for name, lifecycle in lifecycles.items():
        facts = facts_of(lifecycle, scheduler.services[name], is_leaving=True)
        process = lifecycle.process
        if facts is not None and is_kept(lifecycle) and isinstance(process, NodeProcess):
            process.remember(facts.as_text(), ending_of(lifecycle))
            process.detach()
            left.add(name)
    return frozenset(left)


def adopt(
    lifecycles: Mapping[str, Lifecycle], scheduler: Scheduler, name: str, process: ProcessHandle,
    facts: RunFacts, now: float,
) -> bool:  # fmt: skip
    """Make *process*, which an earlier supervisor has left running, that of service *name*.

    The service counts as starting until a probe passes, with the memory that it was granted. The
    hooks of its start are not run again.

    Args:
        lifecycles: All services.
        scheduler: Their scheduler.
        name: Name of the service.
        process: The process.
        facts: Facts that the earlier supervisor gave to the launcher.
        now: Present time in seconds on the loop's clock.

    Returns:
        False if there is no such service, another command would start it now, or its chart adopts
        no process.
    """
    lifecycle, entry = lifecycles.get(name), scheduler.services.get(name)
    if lifecycle is None or entry is None or facts.digest != digest_of_spec(lifecycle.spec):
        return False
    if "adopted" not in lifecycle.document.events or not lifecycle.is_quiet:
        return False
    if scheduler.memory is not None and entry.need is not None:
        known = scheduler.memory.pools
        entry.claim = {pool: amount for pool, amount in facts.claim.items() if pool in known}
    if isinstance(process, NodeProcess):
        process.attach(lifecycle.log)
    lifecycle.adopt(process, facts)
    entry.note_adoption(facts.start_s, now)
    return True


def facts_of(
    lifecycle: Lifecycle, entry: ServiceEntry, *, is_leaving: bool = False
) -> RunFacts | None:
    """Return the facts with which another supervisor can adopt the process of a service.

    Args:
        lifecycle: The service.
        entry: Its entry of the scheduler.
        is_leaving: The supervisor ends now, so the time of the last use is known.

    Returns:
        None unless the service is ready or asleep.
    """
    state = lifecycle.service
    if lifecycle.state not in ("ready", "asleep") or state.process is None:
        return None
    kept = state.kept if state.kept and state.kept[0] == state.incarnation else None
    return RunFacts(
        digest=digest_of_spec(state.spec), incarnation=state.incarnation,
        is_asleep=lifecycle.state == "asleep", after_healthy=state.after_healthy,
        place=state.place or {}, claim=entry.claim, start_s=entry.load_s,
        launched_at=state.launched_at, idle_since=entry.used_at if is_leaving else None,
        kept_s=None if kept is None else kept[1],
    )  # fmt: skip


def ending_of(lifecycle: Lifecycle) -> Ending:
    """Return how the present process of a service is ended without its supervisor.

    Hooks that are functions of the program cannot be run then, and are left out.
    """
    state = lifecycle.service
    spec = state.spec
    pid = state.process.pid or None if state.process else None
    argv = tuple(fill_pid(item, pid) for item in spec.stop_argv)
    return Ending(
        before=tuple(_steps(state, "beforeStop")),
        stop=state.helper(argv) if argv else None,
        grace_s=spec.timings.grace,
        failed=tuple(_steps(state, "onFailure")),
        after=tuple(_steps(state, "afterStop")),
    )


def _steps(state: ServiceState, point: str) -> Iterator[EndingStep]:
    context = replace(state.context(point), reason=_REASON)
    for hook in state.spec.hooks.get(point, ()):
        step = EndingStep(
            timeout_s=hook.timeout_s, retries=hook.retries, delay_s=hook.delay_s,
            is_needed=hook.on_error == "fail",
        )  # fmt: skip
        match hook.action:
            case RunAction() as run:
                command = run.command(context, state.helper(run.argv))
                yield replace(step, command=command, is_inside=run.is_inside)
            case HttpAction() as http:
                yield replace(step, call=http.filled(context))
