"""From the first request to the first answer, and everything that can end it before."""

from __future__ import annotations

from tools.virtual import World, tell

from swapchart.runtime import Exit
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
