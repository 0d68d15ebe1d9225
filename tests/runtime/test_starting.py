"""From the first request to the first answer, and everything that can end it before."""

from __future__ import annotations

import anyio
import pytest

from swapchart.runtime import Exit, RequestError, Supervisor
from swapchart.runtime.testing import (
    ScriptedLauncher,
    ServerScript,
    run_virtual,
    service,
)


def test_a_thousand_requests_for_a_stopped_service_share_one_start() -> None:
    """However many wait, one process is spawned, and each of them is admitted at the same time."""
    launcher = ScriptedLauncher({"a": ServerScript(healthy_s=20.0)})
    admitted: list[float] = []

    async def client(supervisor: Supervisor) -> None:
        async with supervisor.lease("a"):
            admitted.append(anyio.current_time())
            await anyio.sleep(1.0)

    async def main() -> None:
        async with Supervisor(launcher, [service("a")]) as supervisor:
            async with anyio.create_task_group() as tasks:
                for _ in range(1000):
                    tasks.start_soon(client, supervisor)
        launcher.assert_ended()

    run_virtual(main)

    assert launcher.count("spawn", "a") == 1
    assert len(admitted) == 1000
    assert max(admitted) - min(admitted) == 0.0


def test_a_request_that_fails_to_start_says_what_the_process_said_last() -> None:
    """A waiter of a process that dies while loading gets its exit code and its last lines."""
    script = ServerScript(
        healthy_s=None,
        exit_s=3.0,
        exit=Exit(code=1),
        output=((1.0, b"loading\n"), (2.0, b"no such file\n")),
    )
    launcher = ScriptedLauncher({"a": script})

    async def main() -> None:
        async with Supervisor(launcher, [service("a")]) as supervisor:
            with pytest.raises(RequestError, match="exit code 1") as caught:
                await supervisor.acquire("a")

            assert caught.value.code == "exited"
            assert caught.value.log_tail == ("loading", "no such file")

    run_virtual(main)
