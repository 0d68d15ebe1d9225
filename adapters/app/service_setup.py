"""From the configuration to what the runtime and the proxy work with."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ...machine import ChartError, Document
from ...runtime import (
    Command,
    EvictionPolicy,
    Hook,
    HttpAction,
    HttpCall,
    Liveness,
    QueueLimits,
    RunAction,
    ServiceSpec,
    Timings,
)
from ...runtime.eviction import (
    All,
    Any,
    Expression,
    Group,
    One,
    SetRef,
    group_policy,
    matrix_policy,
)
from ..config import Config, HookAction, ModelConfig, Problem
from ..config.matrix_expression import parse_expression
from ..kv.manager import KvKeeper, shortcoming
from ..kv.settings import KvSettings

_STOP_SLACK_S = 5.0  # for what has no limit of its own: starting hooks, reaping, a busy machine


_NEVER_S = 1e9  # a liveness that only listens for stalled streams


def service_specs(config: Config) -> list[ServiceSpec]:
    """Return one service for each model, in the order of the configuration."""
    return [service_spec(model) for model in config.models.values()]


def service_spec(model: ModelConfig) -> ServiceSpec:
    """Return *model* as a service."""
    hooks = {point: _hooks(actions) for point, actions in model.hooks.items()}
    hooks["suspend"], hooks["wake"] = _hooks(model.sleep.enter), _hooks(model.sleep.wake)
    settle = None
    if model.settle:
        settle = Hook(action=RunAction(argv=model.settle), timeout_s=model.settle_timeout_s)
    return ServiceSpec(
        name=model.id,
        command=Command(
            argv=model.argv,
            env=model.environment,
            label=model.id,
            # Without a check nobody asks whose server it is: it may well be another's.
            listens_at=model.proxy if model.check_url is not None else None,
        ),
        endpoint=model.proxy,
        check_url=model.check_url,
        stop_argv=model.stop_argv,
        hooks={point: actions for point, actions in hooks.items() if actions},
        timings=_timings(model),
        restart=model.restart.policy,
        intensity=max(model.restart.intensity, 1),
        abandon=model.abandon,
        drain=model.drain.policy,
        liveness=_liveness(model),
        settle=settle,
        pinned=model.pinned,
        concurrency_limit=model.concurrency_limit,
    )


def kv_settings(model: ModelConfig) -> KvSettings | None:
    """Return how the conversations of *model* are kept, or None when they are not."""
    return None if model.kv.mode == "off" else kv_wish(model)


def kv_wishes(config: Config) -> dict[str, KvSettings | None]:
    """Return as `kv_settings`, for each model by its name."""
    return {model.id: kv_settings(model) for model in config.models.values()}


def kv_wish(model: ModelConfig) -> KvSettings:
    """Return how the conversations of *model* are kept or, now switched off, would be."""
    given = model.kv
    return KvSettings(
        directory=Path(given.dir) if given.dir else None,
        tmpfs=Path(given.tmpfs) if given.tmpfs else None,
        manages_args=given.manage_args,
        min_tokens=given.min_tokens,
        timeout_s=given.timeout,
        allows_swa=given.allow_swa,
        max_bytes=given.max_bytes,
        max_age_s=given.max_age,
    )


def equipped_specs(config: Config, keeper: KvKeeper) -> list[ServiceSpec]:
    """Return as `service_specs`, with what *keeper* needs to keep conversations."""
    return [equipped(model, service_spec(model), keeper) for model in config.models.values()]


def equipped(model: ModelConfig, spec: ServiceSpec, keeper: KvKeeper) -> ServiceSpec:
    """Return *spec*, which is *model*, with what *keeper* needs to keep its conversations."""
    settings = kv_settings(model)
    return spec if settings is None else keeper.equip(spec, settings)


def kv_problems(config: Config, state: Path) -> list[Problem]:
    """Return what keeps conversations from being kept, with what to do about it.

    Args:
        config: Of the proxy.
        state: Its state directory.
    """
    keeper, found = KvKeeper(state / "kv"), []
    for model in config.models.values():
        settings, spec = kv_settings(model), service_spec(model)
        if settings is not None:
            texts = (keeper.hindrance(spec, settings), shortcoming(spec))
            found += [(f"models.{model.id}.kv", text) for text in texts if text]
    return [
        Problem(file="", path=path, line=0, column=0, message=text, severity="warning")
        for path, text in found
    ]


def _hooks(actions: tuple[HookAction, ...]) -> tuple[Hook, ...]:
    return tuple(
        Hook(
            action=RunAction(argv=item.argv) if item.http is None else HttpAction(call=item.http),
            timeout_s=item.timeout_s,
            retries=item.retries,
            delay_s=item.delay_s,
            on_error=item.on_error,
        )
        for item in actions
    )


def _timings(model: ModelConfig) -> Timings:
    return Timings(
        start_limit=model.start_timeout,
        stall_limit=model.stall_timeout or None,
        idle_limit=model.ttl or None,
        doze_limit=model.sleep.after_s or None,
        asleep_limit=model.sleep.stop_after_s or None,
        stable=model.restart.period,
        drain_limit=model.drain.timeout,
        grace=model.unload_timeout,
        backoff=model.restart.backoff,
        backoff_max=model.restart.backoff_max,
        cooldown=model.restart.cooldown,
        settle=model.settle_timeout_s,
    )


def _liveness(model: ModelConfig) -> Liveness | None:
    given = model.liveness
    if not given.every and not given.stalled:
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
    url = model.proxy + given.path if given.path else model.check_url or model.proxy
    return Liveness(
        every_s=given.every or _NEVER_S,
        url=url,
        timeout_s=given.timeout,
        failures=given.failures,
        request=request,
        stalled_s=given.stalled or None,
    )


def eviction_policy(config: Config) -> EvictionPolicy:
    """Return what must go for what, by the groups or the matrix of *config*."""
    routing = config.routing
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
    """Return *given* with variables in place of the models they stand for."""
    match given:
        case One(name=name):
            return One(names.get(name, name))
        case SetRef():
            return given
        case Any(parts=parts) | All(parts=parts):
            return type(given)(tuple(_resolved(part, names) for part in parts))


def stop_limit_s(config: Config) -> float:
    """Return how long the end of the proxy may take: what was said, or what the models need."""
    if config.shutdown_timeout is not None:
        return config.shutdown_timeout
    needs = (
        (spec.timings.drain_limit or 0.0) + spec.longest_stop_s() + _save_limit_s(model)
        for model, spec in ((model, service_spec(model)) for model in config.models.values())
    )
    return max(needs, default=0.0) + _STOP_SLACK_S


def chart(config: Config) -> Document | None:
    """Return the chart of all models with the changes of *config*; None: the shipped one.

    Raises:
        ChartError: The changes do not fit, or the chart then breaks a promise; the shortest way
            to it is in the notes.
    """
    if not config.lifecycle:
        return None
    from ...machine import Bounds, check, lifecycle
    from ...machine.explore import parameter_sets
    from ...machine.overlay import merge

    document = merge(lifecycle(), config.lifecycle)
    first = next(iter(parameter_sets(document, Bounds())))  # all of them: `swapchart chart check`
    report = check(document, parameters=[first], stop_at_first=True)
    if not report.is_ok:
        error = ChartError("lifecycle", report.findings[0].sentence)
        error.add_note(str(report.findings[0]))
        raise error
    return document


def _save_limit_s(model: ModelConfig) -> float:
    settings = kv_settings(model)
    return 0.0 if settings is None else settings.hook_timeout_s


def queue_limits(config: Config) -> QueueLimits:
    """Return what the request queue bears."""
    queue = config.queue
    return QueueLimits(
        length=queue.limit,
        timeout_s=queue.timeout or None,
        max_wait_s=queue.max_wait,
        min_residency_s=queue.min_residency,
    )
