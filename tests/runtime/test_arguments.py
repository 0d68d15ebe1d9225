"""Wrong arguments of the embedding API: each is one clear error at once."""

from __future__ import annotations

import inspect
import math
import types
import typing
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from functools import partial
from typing import Any

import anyio
import pytest
from tools.compiled import IS_COMPILED
from tools.virtual import World, run_scenario

from swapchart.machine import Document, Report, read
from swapchart.runtime import (
    Actions,
    CallAction,
    Command,
    ConfigError,
    EndedError,
    Exit,
    Group,
    Hook,
    HostStateError,
    HttpAction,
    HttpCall,
    Liveness,
    LogRing,
    MemoryLedger,
    Player,
    Policy,
    Probe,
    QueueLimits,
    RunAction,
    Scheduler,
    ServiceSpec,
    Supervisor,
    SwapchartError,
    Timings,
    UnknownStateError,
)
from swapchart.runtime.testing import ScriptedLauncher, run_virtual, service

WRONG: tuple[Any, ...] = (
    None, math.nan, -1, 0, 1.5, "", "x", b"x", [], ["x", 3], {}, {3: 4}, True, object(), object,
)  # fmt: skip


async def call(context: object) -> None:
    """Do nothing."""


LAMP = read("""
format: swapchart.chart/v1
name: Lamp
events: {press: {data: {force: [1, 2]}}}
chart:
  states:
    dark: {initial: true, transitions: [{event: press, target: lit}]}
    lit: {transitions: [{event: press, target: dark}]}
""")
COMMAND = Command(argv=("web",))
CALL = HttpCall(method="POST", url="http://127.0.0.1:1/")
#: Public class -> arguments that are right.
VALUES: dict[Callable[..., Any], dict[str, Any]] = {
    CallAction: {"function": call},
    Command: {"argv": ("web",)},
    Exit: {},
    Group: {"members": frozenset({"a"})},
    Hook: {"action": RunAction(argv=("save",))},
    HttpAction: {"call": CALL},
    HttpCall: {"method": "GET", "url": "http://127.0.0.1:1/"},
    Liveness: {"every_s": 1.0, "url": "http://127.0.0.1:1/"},
    LogRing: {},
    MemoryLedger: {},
    Probe: {"is_ok": True},
    QueueLimits: {},
    RunAction: {"argv": ("save",)},
    Scheduler: {},
    ServiceSpec: {"name": "web", "command": COMMAND, "endpoint": "http://127.0.0.1:1"},
    Supervisor: {"launcher": ScriptedLauncher()},
    Timings: {},
    Actions: {},
    Player: {"chart": LAMP},
}


def fits(value: Any, hint: Any) -> bool:
    """Return True if *value* may be passed where *hint* is declared, or if it is not certain."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any or isinstance(hint, typing.TypeVar):
        return True
    if hint is None or hint is type(None):
        return value is None
    if origin in (typing.Union, types.UnionType):
        return any(fits(value, one) for one in inner)
    if origin is typing.Literal:
        return isinstance(value, str) and value in inner
    if origin is type or hint is type:
        return False
    if hint is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if origin is Callable or hint is Callable:
        return callable(value)
    kind = origin or hint
    if isinstance(value, (str, bytes)) and kind not in (str, bytes):
        return False
    if kind in (tuple, Sequence, list, frozenset) or issubclass(kind, Collection):
        items = Mapping if issubclass(kind, Mapping) else Collection
        if not isinstance(value, items) or (items is Collection and isinstance(value, Mapping)):
            return False
        keys = [fits(one, inner[0]) for one in value] if inner else []
        return all(keys) and (items is Collection or all(
            fits(one, inner[1]) for one in value.values()  # type: ignore[attr-defined]
        ))  # fmt: skip
    return not getattr(kind, "_is_protocol", False) and isinstance(value, kind)


def hints(function: Callable[..., Any]) -> dict[str, Any]:
    """Return parameter -> type."""
    if isinstance(function, type) and "__init__" not in vars(function):
        function = inspect.unwrap(function.__init__)  # type: ignore[misc]
    elif isinstance(function, type):
        function = vars(function)["__init__"]
    here = {"Report": Report, "StateChart": type, "Document": Document}
    found = typing.get_type_hints(function, localns=here)
    return {name: hint for name, hint in found.items() if name != "return"}


def judge(call: Callable[[], object], parameter: str, wrong: Any, hint: Any, where: str) -> None:
    """Call and compare with what *hint* says of *wrong*."""
    try:
        call()
    except SwapchartError as error:
        if parameter not in str(error) and repr(wrong) not in str(error):
            pytest.fail(f"{where}({parameter}={wrong!r}): {error}")
    except Exception as error:  # noqa: BLE001
        pytest.fail(f"{where}({parameter}={wrong!r}): {type(error).__name__}: {error}")
    else:
        assert fits(wrong, hint), f"{where}({parameter}={wrong!r}) was accepted"


@pytest.mark.skipif(IS_COMPILED, reason="compiled modules check types by themselves")
@pytest.mark.parametrize("cls", VALUES, ids=lambda cls: cls.__name__)
def test_constructor_with_a_wrong_argument_names_it(cls: Callable[..., Any]) -> None:
    """Each parameter of each public class, with each wrong value: no raw error, none accepted."""

    async def main() -> None:  # a supervisor is made inside an event loop
        for parameter, hint in hints(cls).items():
            for wrong in WRONG:
                arguments = {**VALUES[cls], parameter: wrong}
                judge(partial(cls, **arguments), parameter, wrong, hint, cls.__name__)

    run_virtual(main)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"restart": "always"},
         "a.restart: expected one of 'temporary', 'transient', 'permanent', got 'always'"),
        ({"drain": "x"}, "a.drain: expected one of 'cut', 'wait', 'refuse', got 'x'"),
        ({"abandon": "stop"}, "a.abandon: expected one of 'finish', 'abort', got 'stop'"),
        ({"check_url": "ftp://x"},
         "a.check_url: expected an http:// or https:// URL or None, got 'ftp://x'"),
        ({"endpoint": "127.0.0.1:5800"}, "a.endpoint: expected an http:// or https:// URL, got"),
        ({"endpoint": "http://127.0.0.1:x"}, "a.endpoint: expected an http:// or https:// URL"),
        ({"concurrency_limit": 1.5}, "a.concurrency_limit: expected >= 1, a whole number, or None"),
        ({"stop_argv": "kill 1"}, "a.stop_argv: expected a tuple of texts, got a str"),
        ({"hooks": {"beforeStop": Hook(action=CallAction(function=call))}},
         "a.hooks.beforeStop: expected a tuple of hooks, got Hook("),
        ({"timings": 3}, "a.timings: expected Timings, got 3"),
        ({"command": ("sleep", "5")}, "a.command: expected a Command, got ('sleep', '5')"),
    ],
)  # fmt: skip
def test_spec_with_a_wrong_value_says_what_was_expected(
    fields: Mapping[str, Any], message: str
) -> None:
    """The text names the service, the field, the expected and the found value."""
    with pytest.raises(ConfigError) as refused:
        service("a", **fields)

    assert message in str(refused.value)


@pytest.mark.parametrize("seconds", [-1, math.nan, "3", True])
@pytest.mark.parametrize("name", list(Timings.__dataclass_fields__))
def test_timings_with_a_wrong_time_are_refused(name: str, seconds: Any) -> None:
    """Negative, not a number, or no number at all."""
    with pytest.raises(ConfigError, match=rf"timings.{name}: expected >=? 0"):
        Timings(**{name: seconds})


@pytest.mark.parametrize("argv", ["sleep 5", (), [], [""], ("sleep", 5), None])
def test_command_without_a_program_is_refused(argv: Any) -> None:
    """A text is not split as a shell would; the error does not show it, since it may hold keys."""
    with pytest.raises(ConfigError, match="argv") as refused:
        Command(argv=argv)

    assert "sleep 5" not in str(refused.value)


def test_command_with_a_list_equals_one_with_a_tuple() -> None:
    """A list is kept as a tuple, so that it cannot change later."""
    assert Command(argv=["sleep", "5"]) == Command(argv=("sleep", "5"))  # type: ignore[arg-type]


def test_spec_without_a_name_is_refused() -> None:
    """Empty and blank."""
    for name in ("", "  "):
        with pytest.raises(ConfigError, match="name: expected a name"):
            ServiceSpec(name=name, command=COMMAND, endpoint="http://127.0.0.1:1")


def test_policy_groups_with_something_else_says_which() -> None:
    """A set of names is no group."""
    with pytest.raises(ConfigError, match=r"groups\[1\]: expected a Group, got frozenset"):
        Policy.groups(Group(members=frozenset({"a"})), frozenset({"b"}))  # type: ignore[arg-type]


# ---- methods
@dataclass
class Case:
    """One method and arguments for it that are right."""

    method: str
    arguments: dict[str, Any]


SUPERVISOR = [
    Case("add", {"spec": service("new")}),
    Case("update", {"spec": service("a")}),
    Case("apply", {"services": [service("a")]}),
    Case("retire", {"name": "a"}),
    Case("remove", {"name": "a"}),
    Case("get", {"name": "a"}),
    Case("__getitem__", {"name": "a"}),
    Case("lease", {"name": "a"}),
    Case("acquire_nowait", {"name": "a"}),
    Case("acquire", {"name": "a"}),
    Case("hold", {"name": "a", "count": 1}),
    Case("load", {"name": "a"}),
    Case("unload", {"name": "a"}),
    Case("unload_all", {}),
    Case("shutdown", {}),
    Case("kill", {}),
    Case("listen", {"listener": print}),
    Case("events", {}),
]
LIFECYCLE = [
    Case("post", {"event": "stop"}),
    Case("start", {}),
    Case("stop", {}),
    Case("stop_nowait", {}),
    Case("note_stall", {}),
    Case("keep_for", {"seconds": 1}),
    Case("end_within", {"limit_s": 1}),
    Case("update_spec", {"spec": service("a")}),
    Case("variable", {"name": "in_flight"}),
    Case("deadline", {"timer": "grace"}),
    Case("is_running", {"name": "health"}),
]
PLAYER = [
    Case("post", {"event": "press"}),
    Case("can", {"event": "press"}),
    Case("datum", {"name": "force"}),
    Case("listen", {"listener": print}),
]


async def use(found: object) -> None:
    """Await *found*, or enter it, if that is how it is used."""
    if inspect.isawaitable(found):
        await found
    elif isinstance(found, AbstractAsyncContextManager):
        async with found:
            pass


async def try_all(target: object, case: Case) -> None:
    """Call the method with each wrong value of each parameter; none may hang."""
    method = getattr(target, case.method)
    for parameter, hint in hints(method).items():
        if parameter in ("source", "waiter", "error"):
            continue  # of the runtime's own calls
        for wrong in WRONG:
            where = f"{type(target).__name__}.{case.method}"
            if case.method == "remove" and fits(wrong, hint):
                continue  # there is one service to remove
            try:
                with anyio.fail_after(1000):
                    await use(method(**{**case.arguments, parameter: wrong}))
            except SwapchartError as error:
                named = (parameter, repr(wrong), "field" if parameter == "data" else parameter)
                if not any(each in str(error) for each in named):
                    pytest.fail(f"{where}({parameter}={wrong!r}): {error}")
            except TimeoutError:
                pytest.fail(f"{where}({parameter}={wrong!r}) does not end")
            except Exception as error:  # noqa: BLE001
                pytest.fail(f"{where}({parameter}={wrong!r}): {type(error).__name__}: {error}")
            else:
                is_lookup = case.method in ("get",)
                assert is_lookup or fits(wrong, hint), f"{where}({parameter}={wrong!r}) accepted"


@pytest.mark.skipif(IS_COMPILED, reason="compiled modules check types by themselves")
@pytest.mark.parametrize("case", SUPERVISOR, ids=lambda case: case.method)
def test_supervisor_method_with_a_wrong_argument_names_it(case: Case) -> None:
    """One of the errors of the package, at once."""

    async def scenario(world: World) -> None:
        await try_all(world.supervisor, case)

    run_scenario(scenario, service("a"))


@pytest.mark.skipif(IS_COMPILED, reason="compiled modules check types by themselves")
@pytest.mark.parametrize("case", LIFECYCLE, ids=lambda case: case.method)
def test_lifecycle_method_with_a_wrong_argument_names_it(case: Case) -> None:
    """One of the errors of the package, at once."""

    async def scenario(world: World) -> None:
        await try_all(world["a"], case)

    run_scenario(scenario, service("a"))


@pytest.mark.parametrize("case", PLAYER, ids=lambda case: case.method)
def test_player_method_with_a_wrong_argument_names_it(case: Case) -> None:
    """One of the errors of the package, at once."""

    async def main() -> None:
        async with Player(LAMP) as player:
            await try_all(player, case)

    run_virtual(main)


@pytest.mark.parametrize("states", [("redy",), (), (3,), ([],), ("ready", "x"), ("",)])
def test_wait_for_an_unknown_state_does_not_hang(states: tuple[Any, ...]) -> None:
    """Of a service and of a player; the error guesses what was meant."""

    async def scenario(world: World) -> None:
        async with Player(LAMP, id="lamp") as player:
            for target in (world["a"], player):
                with anyio.fail_after(1000), pytest.raises(UnknownStateError) as refused:
                    await target.wait_for(*states)
                assert str(refused.value).startswith(("a: ", "lamp: "))
                if states == ("redy",) and target is not player:
                    assert str(refused.value) == "a: no state 'redy'; did you mean 'ready'?"

    run_scenario(scenario, service("a"))


def test_wait_for_a_state_of_a_service_that_was_removed_ends() -> None:
    """An `EndedError` instead of a wait without end, before and after the end."""

    async def scenario(world: World) -> None:
        lifecycle = world["a"]
        ended: list[str] = []

        async def wait() -> None:
            with pytest.raises(EndedError, match="a: ready cannot come any more: the service was"):
                await lifecycle.wait_for("ready")
            ended.append("first")

        world.spawn(wait)
        await world.moment()
        await world.supervisor.remove("a")
        with anyio.fail_after(1000):
            await wait()
        await lifecycle.wait_for("shut_down")
        await world.moment()
        assert len(ended) == 2

    run_scenario(scenario, service("a"))


def test_player_snapshot_before_its_begin_is_refused() -> None:
    """The error says to enter it first."""

    async def main() -> None:
        player = Player(LAMP, id="lamp")
        with pytest.raises(HostStateError, match="lamp: the instance has not begun: enter"):
            player.snapshot()
        async with player:
            assert player.snapshot().configuration == ("dark",)
        assert player.snapshot().configuration == ("dark",)

    run_virtual(main)


def test_supervisor_before_its_begin_says_to_enter_it() -> None:
    """Not that there is no such service; and it is entered once."""

    async def main() -> None:
        supervisor = Supervisor(ScriptedLauncher(), [service("a")])
        calls: list[Callable[[], object]] = [
            lambda: supervisor["a"], lambda: supervisor.hold("a", 1), supervisor.review,
            lambda: supervisor.lease("a"), lambda: supervisor.load("a"),
            lambda: supervisor.unload("a"), lambda: supervisor.remove("a"),
            lambda: supervisor.add(service("b")), lambda: supervisor.spawn(call),
        ]  # fmt: skip
        for each in calls:
            with pytest.raises(HostStateError, match="has not begun: enter `async with` first"):
                await use(each())
        async with supervisor:
            pass
        with pytest.raises(HostStateError, match="entered once"):
            async with supervisor:
                pass

    run_virtual(main)
