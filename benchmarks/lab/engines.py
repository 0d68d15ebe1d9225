"""One small chart in four engines, and our shipped one; run as a process for each measurement.

All of them do the same: a service is started, launched, checked, serves three requests, drains
and ends. Each action puts one item on a list, which the driver takes after each event.

    python engines.py trace ENGINE                      what the actions of two rounds were
    python engines.py speed ENGINE INSTANCES SECONDS    events a second, microseconds to make one
    python engines.py memory ENGINE INSTANCES           bytes for each
    python engines.py idle SERVICES SECONDS             services of a supervisor, doing nothing

Everything is printed as JSON.
"""

from __future__ import annotations

import gc
import json
import sys
import time
import tracemalloc
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import anyio
import psutil

ROUND = (
    "start", "spawned", "healthy", "request", "request", "request", "finish", "finish", "stop",
    "finish", "exited",
)  # fmt: skip
#: One life of the shipped chart, with its hooks; events of activities stand for their ends.
SHIPPED_ROUND = (
    "request", "hooks_done", "spawned", "hooks_done", "healthy", "hooks_done", "request", "request",
    "finish", "finish", "stop", "finish", "hooks_done", "proc_exited", "swept", "hooks_done",
    "settled",
)  # fmt: skip

_NAMES = (
    "arm_limit", "cancel_limit", "spawn", "probe", "cancel_probe", "admit_waiters", "terminate",
)  # fmt: skip
SMALL: dict[str, Any] = {
    "format": "swapchart.chart/v1",
    "name": "Small",
    "data": {"in_flight": {"initial": 0}},
    "events": {name: {} for name in dict.fromkeys(ROUND)},
    "guards": {"busy": "in_flight > 0", "last": "in_flight == 1"},
    "actions": {
        **{f"do_{name}": {"do": {"effect": "notify", "name": name}} for name in _NAMES},
        "admit": {
            "do": {"effect": "notify", "name": "admit"}, "set": {"in_flight": "in_flight + 1"},
        },
        "release": {
            "do": {"effect": "notify", "name": "release"}, "set": {"in_flight": "in_flight - 1"},
        },
    },
    "chart": {
        "name": "Small",
        "states": {
            "stopped": {
                "initial": True, "transitions": [{"event": "start", "target": "starting"}],
            },
            "starting": {
                "enter": "do_arm_limit",
                "exit": "do_cancel_limit",
                "transitions": [{"event": "exited", "target": "stopped"}],
                "states": {
                    "launching": {
                        "initial": True,
                        "enter": "do_spawn",
                        "transitions": [{"event": "spawned", "target": "checking"}],
                    },
                    "checking": {
                        "enter": "do_probe",
                        "exit": "do_cancel_probe",
                        "transitions": [{"event": "healthy", "target": "serving"}],
                    },
                },
            },
            "serving": {
                "enter": "do_admit_waiters",
                "transitions": [
                    {"event": "request", "on": "admit"},
                    {"event": "finish", "on": "release"},
                    {"event": "stop", "target": "draining", "cond": "busy"},
                    {"event": "stop", "target": "terminating"},
                ],
            },
            "stopping": {
                "states": {
                    "draining": {
                        "initial": True,
                        "transitions": [
                            {
                                "event": "finish", "target": "terminating", "cond": "last",
                                "on": "release",
                            },
                            {"event": "finish", "on": "release"},
                        ],
                    },
                    "terminating": {
                        "enter": "do_terminate",
                        "transitions": [{"event": "exited", "target": "stopped"}],
                    },
                },
            },
        },
    },
}  # fmt: skip


class Instance(Protocol):
    """One instance of the chart."""

    def __call__(self, event: str) -> Sequence[object]:
        """Take *event*; returns what its actions put on the list."""
        ...


Maker = Callable[[], Instance]


# ---- swapchart, and the library under it
def table() -> Maker:
    """Our decision table."""
    return _ours(small=True, by_table=True)


def library() -> Maker:
    """The python-statemachine class itself, on its synchronous engine."""
    return _ours(small=True, by_table=False)


def shipped_table() -> Maker:
    """The lifecycle that is shipped, by our decision table."""
    return _ours(small=False, by_table=True)


def shipped_library() -> Maker:
    """The lifecycle that is shipped, by the python-statemachine class itself."""
    return _ours(small=False, by_table=False)


def _ours(*, small: bool, by_table: bool) -> Maker:
    from swapchart.machine import Compiled, from_mapping, lifecycle

    compiled = Compiled(from_mapping(SMALL) if small else lifecycle())

    def make() -> Instance:
        stepper = compiled.stepper() if by_table else compiled.reference()
        stepper.begin()
        return stepper.step

    return make


# ---- the others
class _Actions:
    """The actions and guards of the other engines."""

    def __init__(self) -> None:
        self.out: list[str] = []
        self.in_flight = 0

    def busy(self) -> bool:
        return self.in_flight > 0

    def last(self) -> bool:
        return self.in_flight == 1

    def admit(self) -> None:
        self.in_flight += 1
        self.out.append("admit")

    def release(self) -> None:
        self.in_flight -= 1
        self.out.append("release")

    def take(self) -> list[str]:
        out, self.out = self.out, []
        return out


def _noting(name: str) -> Callable[[_Actions], None]:
    return lambda self: self.out.append(name)


for _name in _NAMES:
    setattr(_Actions, f"do_{_name}", _noting(_name))


def transitions() -> Maker:
    """``transitions``: one hierarchical machine, a model for each instance."""
    from transitions.extensions import HierarchicalMachine  # type: ignore[import-not-found]

    states = [
        "stopped",
        {
            "name": "starting", "initial": "launching", "on_enter": "do_arm_limit",
            "on_exit": "do_cancel_limit",
            "children": [
                {"name": "launching", "on_enter": "do_spawn"},
                {"name": "checking", "on_enter": "do_probe", "on_exit": "do_cancel_probe"},
            ],
        },
        {"name": "serving", "on_enter": "do_admit_waiters"},
        {
            "name": "stopping", "initial": "draining",
            "children": ["draining", {"name": "terminating", "on_enter": "do_terminate"}],
        },
    ]  # fmt: skip
    moves = [
        {"trigger": "start", "source": "stopped", "dest": "starting"},
        {"trigger": "exited", "source": "starting", "dest": "stopped"},
        {"trigger": "spawned", "source": "starting_launching", "dest": "starting_checking"},
        {"trigger": "healthy", "source": "starting_checking", "dest": "serving"},
        {"trigger": "request", "source": "serving", "dest": None, "before": "admit"},
        {"trigger": "finish", "source": "serving", "dest": None, "before": "release"},
        {
            "trigger": "stop", "source": "serving", "dest": "stopping_draining",
            "conditions": "busy",
        },
        {"trigger": "stop", "source": "serving", "dest": "stopping_terminating"},
        {
            "trigger": "finish", "source": "stopping_draining", "dest": "stopping_terminating",
            "conditions": "last", "before": "release",
        },
        {"trigger": "finish", "source": "stopping_draining", "dest": None, "before": "release"},
        {"trigger": "exited", "source": "stopping_terminating", "dest": "stopped"},
    ]  # fmt: skip
    machine = HierarchicalMachine(
        model=None, states=states, transitions=moves, initial="stopped", auto_transitions=False
    )

    def make() -> Instance:
        model: Any = _Actions()
        machine.add_model(model)

        def step(event: str) -> Sequence[object]:
            model.trigger(event)
            return list(model.take())

        return step

    return make


def sismic() -> Maker:
    """``sismic``: an interpreter for each instance, its actions being Python code."""
    from sismic.interpreter import Interpreter  # type: ignore[import-not-found]
    from sismic.io import import_from_yaml  # type: ignore[import-not-found]

    chart = import_from_yaml(_SISMIC)

    def make() -> Instance:
        actions = _Actions()
        interpreter = Interpreter(chart, initial_context={"actions": actions})
        interpreter.execute()

        def step(event: str) -> Sequence[object]:
            interpreter.queue(event)
            interpreter.execute()
            return actions.take()

        return step

    return make


_SISMIC = """
statechart:
  name: Small
  root state:
    name: root
    initial: stopped
    states:
      - name: stopped
        transitions: [{event: start, target: starting}]
      - name: starting
        initial: launching
        on entry: actions.do_arm_limit()
        on exit: actions.do_cancel_limit()
        transitions: [{event: exited, target: stopped}]
        states:
          - name: launching
            on entry: actions.do_spawn()
            transitions: [{event: spawned, target: checking}]
          - name: checking
            on entry: actions.do_probe()
            on exit: actions.do_cancel_probe()
            transitions: [{event: healthy, target: serving}]
      - name: serving
        on entry: actions.do_admit_waiters()
        transitions:
          - {event: request, action: actions.admit()}
          - {event: finish, action: actions.release()}
          - {event: stop, target: draining, guard: actions.busy()}
          - {event: stop, target: terminating, guard: not actions.busy()}
      - name: stopping
        initial: draining
        states:
          - name: draining
            transitions:
              - event: finish
                target: terminating
                guard: actions.last()
                action: actions.release()
              - {event: finish, guard: not actions.last(), action: actions.release()}
          - name: terminating
            on entry: actions.do_terminate()
            transitions: [{event: exited, target: stopped}]
"""

ENGINES: dict[str, tuple[Callable[[], Maker], tuple[str, ...]]] = {
    "table": (table, ROUND),
    "library": (library, ROUND),
    "transitions": (transitions, ROUND),
    "sismic": (sismic, ROUND),
    "shipped-table": (shipped_table, SHIPPED_ROUND),
    "shipped-library": (shipped_library, SHIPPED_ROUND),
}


def trace(engine: str) -> list[list[str]]:
    """Return what the actions of two rounds put on the list, event by event."""
    load, events = ENGINES[engine]
    step = load()()
    return [
        [str(getattr(item, "name", item)) for item in step(event)] for event in (*events, *events)
    ]


def speed(engine: str, count: int, seconds: float) -> dict[str, float]:
    """Step *count* instances in turn, for about *seconds* of CPU time."""
    load, events = ENGINES[engine]
    make = load()
    if count > 1:
        gc.collect()  # what compiling left behind is not a cost of the instances
    started = time.process_time()
    instances = [make() for _ in range(count)]
    made = time.process_time() - started
    gc.collect()
    gc.freeze()  # what is set up once is not looked at again and again
    done, used, started = 0, 0.0, time.process_time()
    while used < seconds:
        for event in events:
            for step in instances:
                step(event)
        done += count * len(events)
        used = time.process_time() - started
    return {"events_per_s": done / used, "make_us": made / count * 1e6}


def memory(engine: str, count: int) -> dict[str, float]:
    """Make *count* instances, take each through one round, and see what they hold."""
    load, events = ENGINES[engine]
    make = load()
    warm = make()
    for event in events:
        warm(event)
    gc.collect()
    tracemalloc.start()
    instances = [make() for _ in range(count)]
    for event in events:
        for step in instances:
            step(event)
    gc.collect()
    held, _ = tracemalloc.get_traced_memory()
    return {"bytes_each": held / count}


async def idle(count: int, seconds: float) -> dict[str, float]:
    """Keep *count* services under a supervisor for *seconds*, with nothing to do."""
    from swapchart.adapters.process import LocalLauncher
    from swapchart.runtime import Command, ServiceSpec, Supervisor

    specs = [
        ServiceSpec(
            name=f"service-{number}",
            command=Command(argv=("llama-server", "--port", str(number))),
            endpoint=f"http://127.0.0.1:{number}",
        )
        for number in range(count)
    ]
    gc.collect()
    process = psutil.Process()
    before = process.memory_info().rss
    async with LocalLauncher() as launcher, Supervisor(launcher, specs):
        gc.collect()
        grown = process.memory_info().rss - before
        await anyio.sleep(0.5)
        used, started = time.process_time(), time.monotonic()
        await anyio.sleep(seconds)
        used, took = time.process_time() - used, time.monotonic() - started
    return {"bytes_each": grown / count, "cpu_ms_per_s": used * 1000 / took}


def main() -> None:
    what, engine, *numbers = sys.argv[1:]
    if what == "trace":
        print(json.dumps(trace(engine)))
    elif what == "speed":
        print(json.dumps(speed(engine, int(numbers[0]), float(numbers[1]))))
    elif what == "memory":
        print(json.dumps(memory(engine, int(numbers[0]))))
    elif what == "idle":
        print(json.dumps(anyio.run(idle, int(engine), float(numbers[0]))))


if __name__ == "__main__":
    main()
