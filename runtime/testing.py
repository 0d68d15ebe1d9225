"""Tools for tests of programs that use swapchart: scripted processes and a virtual clock.

    def test_it_starts() -> None:
        async def main() -> None:
            launcher = ScriptedLauncher({"a": ServerScript(healthy_s=30.0)})
            async with Supervisor(launcher, [service("a")]) as supervisor:
                async with supervisor.lease("a"):
                    assert launcher.count("spawn", "a") == 1
            launcher.assert_ended()

        run_virtual(main)

The thirty seconds take no real time: when no task is ready, the loop advances to its next timer.
With a seed it also shuffles tasks that are ready at the same instant, reproducibly.

No test framework is needed. Threads, sockets and signals do not work in such a loop.
"""

from __future__ import annotations

from typing import Any

import anyio

from ..dataclass import dataclass, field
from .ports import Command, HttpCall
from .scripted_launcher import Record, ScriptedLauncher, ScriptedProcess
from .scripts import CommandScript, CommandScripts, ServerScript, ServerScripts
from .spec import ServiceSpec
from .virtual_clock import DeadlockError, LeftoverError, LivelockError, VirtualLoop, run_virtual

__all__ = [
    "CommandScript",
    "CommandScripts",
    "DeadlockError",
    "HttpAnswer",
    "LeftoverError",
    "LivelockError",
    "Record",
    "ScriptedHttp",
    "ScriptedLauncher",
    "ScriptedProcess",
    "ServerScript",
    "ServerScripts",
    "VirtualLoop",
    "run_virtual",
    "service",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpAnswer:
    """One response of a `ScriptedHttp`.

    Attributes:
        status: HTTP status.
        body: Body of the response.
        takes_s: Delay in seconds; beyond the caller's timeout the call fails instead.
        error: Raised instead of a response.
    """

    status: int = 200
    body: bytes = b""
    takes_s: float = 0.0
    error: OSError | None = None


@dataclass(slots=True)
class ScriptedHttp:
    """HTTP client that responds from a list and records the calls; see `HttpClient`.

    Attributes:
        answers: URL -> responses, in order, of which the last one is repeated; any other URL
            gets status 200.
        calls: Every call, in order.
    """

    answers: dict[str, list[HttpAnswer]] = field(default_factory=dict)
    calls: list[HttpCall] = field(default_factory=list)

    async def call(self, call: HttpCall, *, timeout_s: float) -> tuple[int, bytes]:
        """Record *call* and return its response."""
        before = sum(1 for earlier in self.calls if earlier.url == call.url)
        self.calls.append(call)
        answers = self.answers.get(call.url) or [HttpAnswer()]
        response = answers[min(before, len(answers) - 1)]
        await anyio.sleep(min(response.takes_s, timeout_s))
        if response.takes_s > timeout_s:
            raise TimeoutError(f"no response in {timeout_s:g} s")
        if response.error is not None:
            raise response.error
        return response.status, response.body


def service(name: str, **fields: Any) -> ServiceSpec:
    """Return a service for a `ScriptedLauncher`, with a readiness check at a made-up address.

    Args:
        name: Name of the service, and label of its command.
        fields: Any other fields of `ServiceSpec`.
    """
    defaults: dict[str, Any] = {
        "command": Command(argv=(name,), label=name),
        "endpoint": "http://127.0.0.1:5800",
        "check_url": "http://127.0.0.1:5800/health",
    }
    return ServiceSpec(name=name, **{**defaults, **fields})
