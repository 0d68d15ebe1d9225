"""From the first request to the first answer, and everything that can end it before."""

from __future__ import annotations

import pytest
from tools.virtual import World, stand_still, tell

from swapchart.runtime import Exit, Timings
from swapchart.runtime.testing import ServerScript, service


def test_D01_a_thousand_requests_for_a_stopped_service_share_one_start() -> None:
    """However many wait, one process is spawned, and each of them is admitted at the same time."""

    async def story(world: World) -> None:
        clients = [world.client("a", hold_s=1.0) for _ in range(1000)]
        await world.until("a", "ready")
        await world.moment()

        assert {client.served_at for client in clients} == {clients[0].served_at}
        await world.at(60.0)
        assert world.outcomes() == {"finished": 1000}

    launcher = tell(story, service("a"), servers={"a": ServerScript(healthy_s=20.0)})

    assert launcher.count("spawn", "a") == 1


def test_a_request_that_fails_to_start_says_what_the_process_said_last() -> None:
    """A waiter of a process that dies while loading gets its exit code and its last lines."""
    script = ServerScript(
        healthy_s=None,
        exit_s=3.0,
        exit=Exit(code=1),
        output=((1.0, b"loading\n"), (2.0, b"no such file\n")),
    )

    async def story(world: World) -> None:
        client = world.client("a")
        await world.until("a", "backoff")
        await world.moment()

        assert client.outcome == "exited"
        assert client.error is not None
        assert "exit code 1" in str(client.error)
        assert client.error.log_tail == ("loading", "no such file")

    tell(story, service("a"), servers={"a": script})


# ---- the proxy stands still
@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize(
    "timings", [Timings(start_limit=20.0), Timings(start_limit=None, stall_limit=20.0)]
)
def test_A36_a_start_that_stood_still_gets_the_time_back(seed: int, timings: Timings) -> None:
    """A server that became healthy meanwhile is found so, though its limit is long over."""

    async def story(world: World) -> None:
        client = world.client("a", hold_s=0.0)
        await world.at(10.3)
        stand_still(60.0)
        await world.until("a", "ready", "stopping")
        await world.moment()
        assert client.outcome == "finished"

    script = ServerScript(healthy_s=25.0, probe_s=0.2)
    tell(story, service("a", timings=timings), servers={"a": script}, seed=seed)


@pytest.mark.parametrize("other_s", [5.0, 15.0, 1000.0])
def test_A36_the_time_is_given_back_once_and_no_more(other_s: float) -> None:
    """A server that is never healthy is given up when its limit has passed in our own time."""
    timings = Timings(start_limit=20.0)

    async def story(world: World) -> None:
        await world.supervisor.load("other")
        world.client("a")
        await world.at(8.3)
        stand_still(30.0)
        await world.until("a", "stopping")
        assert 50.0 - 1.0 <= world.now <= 50.0 + 1.0

    tell(
        story, service("a", timings=timings),
        service("other", timings=Timings(idle_limit=other_s)),
        servers={"a": ServerScript(healthy_s=None)}, policy=lambda target, running: frozenset(),
    )  # fmt: skip


def test_A36_what_is_idle_gets_nothing_back() -> None:
    """Idle is idle, whether we looked or not."""

    async def story(world: World) -> None:
        await world.supervisor.load("a")
        stand_still(60.0)
        await world.until("a", "stopped")
        assert world.now == pytest.approx(60.0)

    tell(story, service("a", timings=Timings(idle_limit=20.0)))
