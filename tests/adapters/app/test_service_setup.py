"""What the configuration says about a lifecycle is what the runtime does: key by key."""

from __future__ import annotations

from pathlib import Path

import pytest

from swapchart.adapters.app.chart_setup import chart
from swapchart.adapters.app.service_setup import eviction_policy, queue_limits, service_spec
from swapchart.adapters.app.shutdown_timeout import stop_limit_s
from swapchart.adapters.config import Config, check_config, load_config
from swapchart.machine import ChartError
from swapchart.runtime import (
    Command,
    Hook,
    HttpAction,
    HttpCall,
    Liveness,
    QueueLimits,
    RunAction,
    ServiceSpec,
    Timings,
)

FULL = """
hookTimeout: 17
queue: {limit: 5, timeout: 6, maxWait: 7, minResidency: 8}
models:
  m:
    cmd: serve --port 1234
    cmdStop: halt ${PID}
    proxy: http://127.0.0.1:1234/
    checkEndpoint: /ok
    env: [A=b]
    ttl: 101
    unloadTimeout: 102
    startTimeout: 103
    stallTimeout: 104
    maxKeepAlive: 121
    probeTimeout: 113
    abandon: abort
    pinned: true
    concurrencyLimit: 9
    beforeStart: one
    afterStart: [two, {run: three, timeout: 3, retries: 4, delay: 5, onError: fail}]
    afterHealthy: {http: {url: "http://h:1/x", method: put, json: {a: 1}, expect: 204}}
    afterReady: {run: "echo | cat", shell: true, onError: ignore}
    beforeStop: six
    afterStop: seven
    onFailure: eight
    restart:
      {policy: permanent, intensity: 2, period: 105, backoff: 106, backoffMax: 107, cooldown: 108}
    liveness:
      every: 11
      path: /live
      timeout: 12
      failures: 13
      stalled: 14
      firstByte: 15
      request: {path: /v1/x, json: {n: 1}}
    drain: {timeout: 109, policy: refuse}
    sleep: {after: 110, stopAfter: 111, enter: nap, wake: [rise, {run: shine, onError: warn}]}
    settle: {run: is-free, timeout: 112}
"""
WHOLE = ServiceSpec(
    name="m",
    command=Command(argv=("serve", "--port", "1234"), env={"A": "b"}, label="m"),
    endpoint="http://127.0.0.1:1234",
    check_url="http://127.0.0.1:1234/ok",
    stop_argv=("halt", "${PID}"),
    hooks={
        "beforeStart": (Hook(action=RunAction(argv=("one",)), timeout_s=17),),
        "afterStart": (
            Hook(action=RunAction(argv=("two",)), timeout_s=17),
            Hook(
                action=RunAction(argv=("three",)), timeout_s=3, retries=4, delay_s=5,
                on_error="fail",
            ),
        ),
        "afterHealthy": (
            Hook(
                action=HttpAction(
                    call=HttpCall(
                        method="PUT", url="http://h:1/x", body=b'{"a": 1}',
                        headers={"Content-Type": "application/json"}, expect=frozenset({204}),
                    )
                ),
                timeout_s=17,
            ),
        ),
        "afterReady": (
            Hook(
                action=RunAction(argv=("/bin/sh", "-c", "echo | cat")), timeout_s=17,
                on_error="ignore",
            ),
        ),
        "beforeStop": (Hook(action=RunAction(argv=("six",)), timeout_s=17),),
        "afterStop": (Hook(action=RunAction(argv=("seven",)), timeout_s=17),),
        "onFailure": (Hook(action=RunAction(argv=("eight",)), timeout_s=17),),
        "suspend": (Hook(action=RunAction(argv=("nap",)), timeout_s=17, on_error="fail"),),
        "wake": (
            Hook(action=RunAction(argv=("rise",)), timeout_s=17, on_error="fail"),
            Hook(action=RunAction(argv=("shine",)), timeout_s=17, on_error="warn"),
        ),
    },
    timings=Timings(
        start_limit=103, stall_limit=104, idle_limit=101, keep_limit=121, doze_limit=110,
        asleep_limit=111, stable=105, drain_limit=109, grace=102, backoff=106, backoff_max=107,
        cooldown=108, settle=112, probe=113,
    ),
    restart="permanent",
    intensity=2,
    abandon="abort",
    drain="refuse",
    liveness=Liveness(
        every_s=11, url="http://127.0.0.1:1234/live", timeout_s=12, failures=13, stalled_s=14,
        first_byte_s=15,
        request=HttpCall(
            method="POST", url="http://127.0.0.1:1234/v1/x", body=b'{"n": 1}',
            headers={"content-type": "application/json"},
        ),
    ),
    settle=Hook(action=RunAction(argv=("is-free",)), timeout_s=112),
    pinned=True,
    concurrency_limit=9,
)  # fmt: skip


def load(tmp_path: Path, text: str) -> Config:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    return load_config([path])


def test_service_spec_takes_each_lifecycle_key(tmp_path: Path) -> None:
    """One model that says everything, and nothing as it would be anyway."""
    config = load(tmp_path, FULL)

    assert service_spec(config.models["m"]) == WHOLE
    assert queue_limits(config) == QueueLimits(
        length=5, timeout_s=6, max_wait_s=7, min_residency_s=8
    )
    assert stop_limit_s(config) == 109 + 17 + 17 + 102 + 112 + 5


@pytest.mark.parametrize("settle", ["{}", "{run: x, gpuBelow: 5}", "{gpuBelow: 0}"])
def test_service_spec_settles_by_one_condition(tmp_path: Path, settle: str) -> None:
    """A command or nvidia-smi, and a size that can be."""
    path = tmp_path / "config.yaml"
    path.write_text(f"models: {{m: {{cmd: 's ${{PORT}}', settle: {settle}}}}}")
    (problem,) = check_config([path])

    assert problem.path.startswith("models.m.settle")
    assert problem.message.startswith(("expected either run or gpuBelow, found", "expected >= 1"))


def test_service_spec_of_a_minimal_model_has_the_defaults(tmp_path: Path) -> None:
    """Off is no limit, and not a limit of zero seconds."""
    config = load(tmp_path, "models: {m: {cmd: serve, proxy: 'http://127.0.0.1:1'}}")
    spec = service_spec(config.models["m"])

    assert spec == ServiceSpec(
        name="m",
        command=Command(argv=("serve",), label="m"),
        endpoint="http://127.0.0.1:1",
        check_url="http://127.0.0.1:1/health",
    )


def test_overlay_that_breaks_a_promise_is_refused_with_a_trace(tmp_path: Path) -> None:
    """Before anything starts, by what is promised, with the shortest trace in the notes."""
    hasty = "{event: stop, target: killing, 'on': want_stop}"
    config = load(tmp_path, f"lifecycle: {{states: {{ready: {{transitions_before: [{hasty}]}}}}}}")
    with pytest.raises(ChartError) as caught:
        chart(config)

    assert any("stop -> alive.stopping.killing" in note for note in caught.value.__notes__)
    assert chart(load(tmp_path, "models: {}")) is None


@pytest.mark.parametrize(("liveness", "limit_s"), [("", 2.0), ("probeTimeout: 9", 9.0)])
def test_liveness_limit_is_that_of_the_start_probe(
    tmp_path: Path, liveness: str, limit_s: float
) -> None:
    """Without `liveness.timeout`, `probeTimeout` applies."""
    text = f"{liveness}\nmodels: {{m: {{cmd: 's ${{PORT}}', liveness: {{every: 5}}}}}}"
    spec = service_spec(load(tmp_path, text).models["m"])

    assert spec.liveness is not None
    assert spec.liveness.timeout_s == spec.timings.probe == limit_s


EXTERNAL = """
globalTTL: 7
models:
  local: {cmd: "s ${PORT}"}
  watched: {external: true, proxy: "http://h:1"}
  unstoppable: {external: true, proxy: "http://h:2", cmd: start}
  stoppable: {external: true, proxy: "http://h:3", cmd: start, cmdStop: stop}
"""


def test_external_model_without_stop_command_is_neither_idle_nor_evicted(tmp_path: Path) -> None:
    """It evicts no other model, either; with `cmdStop` it is a model like others."""
    config = load(tmp_path, EXTERNAL)
    specs = {name: service_spec(model) for name, model in config.models.items()}
    policy, everything = eviction_policy(config), frozenset(config.models)

    limits = {name: spec.timings.idle_limit for name, spec in specs.items()}
    assert limits == {"local": 7, "watched": None, "unstoppable": None, "stoppable": 7}
    assert policy("watched", everything) == policy("unstoppable", everything) == frozenset()
    assert policy("local", everything - {"local"}) == {"stoppable"}
    assert policy("stoppable", frozenset({"local", "watched"})) == {"local"}


def test_external_model_is_probed_and_has_no_port_check(tmp_path: Path) -> None:
    """Its state follows three failures; a server that is only watched is always wanted."""
    config = load(tmp_path, EXTERNAL)
    watched, stoppable = (service_spec(config.models[name]) for name in ("watched", "stoppable"))

    for spec in (watched, stoppable):
        assert spec.command.is_external
        assert spec.command.listens_at is None
        assert spec.liveness == Liveness(every_s=5, url=f"{spec.endpoint}/health", failures=3)
    assert (watched.restart, watched.intensity, watched.timings.cooldown) == ("permanent", 1, 30)
    assert (stoppable.restart, stoppable.intensity) == ("temporary", 5)
