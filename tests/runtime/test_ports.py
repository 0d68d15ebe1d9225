"""Values of the port: endpoints, ends, commands at an endpoint; and the composite of launchers."""

from __future__ import annotations

from collections.abc import Sequence

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from swapchart.runtime import (
    Adopted,
    Command,
    ConfigError,
    Endpoint,
    EngineDown,
    EngineError,
    Exit,
    Launchers,
    LogRing,
    Node,
    NodeDown,
    NodeLauncher,
    NodeUp,
    PlacementError,
    ProcessHandle,
    SpecError,
)
from swapchart.runtime.ports import LogSink, NodeEvent, NodeProcess
from swapchart.runtime.testing import ScriptedLauncher

H1 = Endpoint("10.0.0.1", 5801, "h1")


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://127.0.0.1:5800", "http://10.0.0.1:5801"),
        ("http://127.0.0.1:5800/base/health?x=1", "http://10.0.0.1:5801/base/health?x=1"),
        ("https://user@localhost/", "https://10.0.0.1:5801/"),
    ],
)
def test_endpoint_replaces_host_and_port_of_a_url(url: str, expected: str) -> None:
    assert H1.at(url) == expected


def test_endpoint_with_an_ipv6_address_is_in_brackets() -> None:
    assert Endpoint("fd00::1", 80).at("http://x:1/health") == "http://[fd00::1]:80/health"


@given(st.text(alphabet="ab$ {}", max_size=20))
def test_endpoint_fills_placeholders_and_nothing_else(text: str) -> None:
    """Text around the placeholders stays, as text and as bytes."""
    given_text = f"{text}${{HOST}}:${{PORT}}@${{NODE}}{text}"
    filled = f"{text}10.0.0.1:5801@h1{text}"

    assert H1.fill(given_text) == filled
    assert H1.fill(given_text.encode()) == filled.encode()
    assert H1.fill(text) == text


def test_command_at_an_endpoint_has_its_placeholders_filled() -> None:
    command = Command(argv=("serve", "--port=${PORT}"), env={"WHERE": "${NODE}"}, incarnation=3)

    placed = command.at(H1)

    assert (placed.argv, dict(placed.env)) == (("serve", "--port=5801"), {"WHERE": "h1"})
    assert placed.incarnation == 3


@pytest.mark.parametrize(
    ("ended", "words"),
    [
        (Exit(reason="node-lost", certain=False), "its node was lost; the process may still run"),
        (Exit(reason="agent-lost"), "its agent was lost"),
        (Exit(reason="evicted", signal=9), "evicted by the engine"),
        (Exit(), "exit code unknown: another process reaped it"),
    ],
)
def test_exit_says_what_the_launcher_lost(ended: Exit, words: str) -> None:
    assert str(ended) == words
    assert ended.is_lost is words.startswith("its ")


def test_exit_with_an_unknown_reason_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"exit\.reason: expected one of"):
        Exit(reason="lost")  # type: ignore[arg-type]


@pytest.mark.parametrize("is_infeasible", [True, False])
def test_placement_error_is_permanent_if_no_node_can_ever_run_it(is_infeasible: bool) -> None:
    assert PlacementError("no room", is_infeasible=is_infeasible).permanent is is_infeasible


class Elsewhere(NodeLauncher):
    """Launcher with one node; its engine may be down."""

    name = "elsewhere"

    def __init__(self) -> None:
        self.ran: list[Command] = []
        self.is_down = False

    async def start(self, command: Command, log: LogSink) -> ProcessHandle:
        raise PlacementError("no room")

    async def run(self, command: Command, log: LogSink) -> Exit:
        self.ran.append(command)
        return Exit(code=0)

    async def nodes(self) -> Sequence[Node]:
        if self.is_down:
            raise EngineError("the engine does not respond")
        return [Node(name="h1", address="10.0.0.1")]

    async def adopt(self) -> Sequence[Adopted]:
        if self.is_down:
            raise EngineError("the engine does not respond")
        return ()


def test_launchers_hand_a_command_to_the_launcher_that_it_names() -> None:
    async def main() -> None:
        here, elsewhere = ScriptedLauncher(), Elsewhere()
        launchers, log = Launchers(here, [elsewhere]), LogRing(100)

        await launchers.run(Command(argv=("a",)), log)
        await launchers.run(Command(argv=("b",), launcher="elsewhere"), log)
        with pytest.raises(PlacementError):
            await launchers.start(Command(argv=("c",), launcher="elsewhere"), log)

        assert here.programs() == ["a"]
        assert [command.argv for command in elsewhere.ran] == [("b",)]

    anyio.run(main)


def test_launchers_without_the_named_one_say_which_there_are() -> None:
    async def main() -> None:
        launchers = Launchers(ScriptedLauncher(), [Elsewhere()])
        with pytest.raises(SpecError, match="no launcher 'ray' is configured; known: elsewhere"):
            await launchers.start(Command(argv=("a",), launcher="ray"), LogRing(100))

    anyio.run(main)


def test_launchers_pass_on_nodes_and_events_until_the_listener_is_removed() -> None:
    async def main() -> None:
        elsewhere = Elsewhere()
        launchers = Launchers(ScriptedLauncher(), [elsewhere])
        events: list[NodeEvent] = []
        remove = launchers.listen(events.append)
        (node,) = await launchers.nodes()

        elsewhere.notify(NodeDown(node))
        elsewhere.notify(NodeUp(node))
        remove()
        remove()
        elsewhere.notify(EngineDown("elsewhere"))

        assert events == [NodeDown(node), NodeUp(node)]

    anyio.run(main)


def test_launchers_leave_out_an_engine_that_does_not_respond() -> None:
    async def main() -> None:
        elsewhere = Elsewhere()
        elsewhere.is_down = True
        launchers = Launchers(ScriptedLauncher(), [elsewhere])

        assert list(await launchers.nodes()) == []
        assert list(await launchers.adopt()) == []

    anyio.run(main)


class Plain(NodeProcess):
    """Process with nothing beyond what every process has."""

    @property
    def pid(self) -> int:
        return 1

    async def wait(self) -> Exit:
        return Exit(code=0)

    def pids(self) -> list[int]:
        return []

    def terminate(self) -> None: ...

    def kill(self) -> None: ...

    async def sweep(self, grace_s: float) -> int:
        return 0

    async def probe(self, url: str, *, timeout_s: float) -> object:  # type: ignore[override]
        raise NotImplementedError


def test_process_is_on_the_proxys_machine_by_default() -> None:
    async def main() -> None:
        process = Plain()

        assert (process.endpoint, process.node) == (None, "")
        assert await process.presence() == "alive"
        with pytest.raises(SpecError, match="in no container"):
            await process.run(Command(argv=("x",)), LogRing(100))

    anyio.run(main)
