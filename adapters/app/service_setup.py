"""Service specs, eviction policy and queue limits, from the configuration."""

from __future__ import annotations

from collections.abc import Mapping

from ...runtime import (
    Command,
    EvictionPolicy,
    HttpCall,
    Liveness,
    QueueLimits,
    ServiceSpec,
    Timings,
)
from ...runtime.eviction import (
    AllOf,
    AnyOf,
    Expression,
    Group,
    ServiceRef,
    SetRef,
    group_policy,
    matrix_policy,
    no_evictions,
)
from ...runtime.ports import Placement, Resources
from ..config import Config, ModelConfig
from ..config.matrix_expression import parse_expression
from ..config.values import NodeChoice

_NEVER_S = 1e9  # interval of a liveness probe that only watches for stalled streams
_EXTERNAL_S = 5.0  # interval of the liveness probe of an external server, unless it is set
_GRACE_S = 5.0
_SPAWN_S = 60.0  # for a node to start a process
_WATCH_S = 30.0  # longest pause until a failed server without command is probed again


def service_spec(model: ModelConfig) -> ServiceSpec:
    """Return the service of *model*."""
    hooks = {**model.hooks, "suspend": model.sleep.enter, "wake": model.sleep.wake}
    if model.pull is not None:
        hooks["beforeStart"] = (*hooks.get("beforeStart", ()), model.pull)
    # Without a readiness probe the port may belong to another process on purpose.
    has_no_port = model.external or model.check_url is None or model.nodes is not None
    nodes = model.nodes or NodeChoice()
    is_watched = model.external and not model.argv
    return ServiceSpec(
        name=model.id,
        command=Command(
            argv=model.argv,
            env=model.environment,
            label=model.id,
            listens_at=None if has_no_port else model.proxy,
            is_external=model.external,
            container=model.container,
            launcher=_launcher(model),
            resources=Resources(gpus=float(nodes.gpus)),
            placement=Placement(nodes=nodes.names, labels=nodes.labels),
            start_limit_s=_SPAWN_S if model.nodes is not None else None,
            grace_s=model.unload_timeout if model.nodes is not None else _GRACE_S,
        ),
        endpoint=model.proxy,
        check_url=_check_url(model),
        stop_argv=model.stop_argv,
        hooks={point: given for point, given in hooks.items() if given},
        timings=_timings(model),
        # A server that is only watched has failed at once, and is probed again until it is back.
        restart="permanent" if is_watched else model.restart.policy,
        intensity=1 if is_watched else max(model.restart.intensity, 1),
        abandon=model.abandon,
        drain=model.drain.policy,
        liveness=_liveness(model),
        settle=model.settle,
        pinned=model.pinned,
        concurrency_limit=model.concurrency_limit,
    )


def _check_url(model: ModelConfig) -> str | None:
    """Return the URL of the readiness probe; a health command in a container needs any one."""
    has_command = model.container is not None and model.container.health
    return model.proxy if has_command else model.check_url


def _launcher(model: ModelConfig) -> str:
    """Return the name of the launcher of *model*; see `Command.launcher`."""
    if model.nodes is not None:
        return "ray"
    return "" if model.container is None else "container"


def _is_unstoppable(model: ModelConfig) -> bool:
    """Return True if nothing stops the server of *model*: no idle limit, no eviction."""
    return model.external and not model.stop_argv


def _timings(model: ModelConfig) -> Timings:
    can_stop = not _is_unstoppable(model)
    cooldown = model.restart.cooldown
    return Timings(
        start_limit=model.start_timeout,
        stall_limit=model.stall_timeout or None,
        idle_limit=model.ttl or None if can_stop else None,
        keep_limit=model.max_keep_alive or None,
        doze_limit=model.sleep.after_s or None,
        asleep_limit=model.sleep.stop_after_s or None if can_stop else None,
        stable=model.restart.period,
        drain_limit=model.drain.timeout,
        grace=model.unload_timeout,
        backoff=model.restart.backoff,
        backoff_max=model.restart.backoff_max,
        cooldown=cooldown if model.argv or model.container else min(cooldown, _WATCH_S),
        probe=model.probe_timeout,
        settle=10.0 if model.settle is None else model.settle.timeout_s,
    )


def _liveness(model: ModelConfig) -> Liveness | None:
    given = model.liveness
    every_s = given.every
    if model.external and not every_s and model.check_url is not None:
        every_s = _EXTERNAL_S
    if not every_s and not given.stalled and not given.first_byte:
        return None
    request = None
    if given.request is not None:
        import json

        request = HttpCall(
            method="POST",
            url=model.proxy + given.request.path,
            headers={"content-type": "application/json"},
            body=json.dumps(given.request.json_body).encode(),
        )
    url = model.proxy + given.path if given.path else _check_url(model) or model.proxy
    return Liveness(
        every_s=every_s or _NEVER_S,
        url=url,
        timeout_s=given.timeout or model.probe_timeout,
        failures=given.failures,
        request=request,
        stalled_s=given.stalled or None,
        first_byte_s=given.first_byte or None,
    )


def eviction_policy(config: Config) -> EvictionPolicy:
    """Return the eviction policy: the groups or the matrix of *config*.

    Models that cannot be stopped are not evicted and evict none.
    """
    policy = _routing_policy(config)
    exempt = frozenset(name for name, model in config.models.items() if _is_unstoppable(model))
    if not exempt:
        return policy

    def without_exempt(target: str, running: frozenset[str]) -> frozenset[str]:
        return frozenset() if target in exempt else policy(target, running - exempt)

    return without_exempt


def _routing_policy(config: Config) -> EvictionPolicy:
    routing = config.routing
    if config.memory.mode == "auto" and routing.matrix is None and len(routing.groups) == 1:
        return no_evictions  # only the default group: memory alone decides
    if routing.use == "matrix" and routing.matrix is not None:
        names = routing.matrix.variables
        sets = {
            name: _resolved(parse_expression(text), names)
            for name, text in routing.matrix.sets.items()
        }
        return matrix_policy(sets, routing.matrix.costs)
    return group_policy(
        [
            Group(
                members=frozenset(group.members),
                swap=group.swap,
                exclusive=group.exclusive,
                persistent=group.persistent,
            )
            for group in routing.groups.values()
        ]
    )


def _resolved(given: Expression, names: Mapping[str, str]) -> Expression:
    """Return *given* with each variable replaced by its model."""
    match given:
        case ServiceRef(name=name):
            return ServiceRef(names.get(name, name))
        case SetRef():
            return given
        case AnyOf(parts=parts) | AllOf(parts=parts):
            return type(given)(tuple(_resolved(part, names) for part in parts))


def queue_limits(config: Config) -> QueueLimits:
    """Return the limits of the request queue."""
    queue = config.queue
    return QueueLimits(
        length=queue.limit,
        timeout_s=queue.timeout or None,
        max_wait_s=queue.max_wait,
        min_residency_s=queue.min_residency,
    )
