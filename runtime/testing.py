"""Doubles of the world, and a clock that never waits: for tests of whatever is built on us.

    def test_it_starts() -> None:
        async def main() -> None:
            launcher = ScriptedLauncher({"a": ServerScript(healthy_s=30.0)})
            async with Supervisor(launcher, [service("a")]) as supervisor:
                async with supervisor.lease("a"):
                    assert launcher.count("spawn", "a") == 1
            launcher.assert_ended()

        run_virtual(main)

Thirty seconds pass there in no time: when nothing is ready the loop goes to its next timer. With
a seed it also shuffles what is ready at one instant, the same way for the same seed.

Nothing here needs a test framework. No threads, sockets or signals: such a loop never hears of
them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import anyio

from .ports import Command, HttpCall
from .scripted_launcher import (
    CommandScript,
    CommandScripts,
    Record,
    ScriptedLauncher,
    ScriptedProcess,
    ServerScript,
    ServerScripts,
)
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
    """How a `ScriptedHttp` answers.

    Attributes:
        status: Of the response.
        body: Of the response.
        takes_s: Seconds before it comes; beyond the caller's limit it is an error instead.
        error: Raised instead of an answer.
    """

    status: int = 200
    body: bytes = b""
    takes_s: float = 0.0
    error: OSError | None = None


@dataclass(slots=True)
class ScriptedHttp:
    """Answers HTTP calls from a list, and writes them down; see `HttpClient`.

    Attributes:
        answers: URL -> answers, one after the other, the last one again and again; any other URL
            is answered with 200.
        calls: Every call, in order.
    """

    answers: dict[str, list[HttpAnswer]] = field(default_factory=dict)
    calls: list[HttpCall] = field(default_factory=list)

    async def call(self, call: HttpCall, *, timeout_s: float) -> tuple[int, bytes]:
        """Answer *call*."""
        before = sum(1 for earlier in self.calls if earlier.url == call.url)
        self.calls.append(call)
        answers = self.answers.get(call.url) or [HttpAnswer()]
        answer = answers[min(before, len(answers) - 1)]
        await anyio.sleep(min(answer.takes_s, timeout_s))
        if answer.takes_s > timeout_s:
            raise TimeoutError(f"no answer in {timeout_s:g} s")
        if answer.error is not None:
            raise answer.error
        return answer.status, answer.body


def service(name: str, **fields: Any) -> ServiceSpec:
    """Make a service for a `ScriptedLauncher`: checked, at a made-up address.

    Args:
        name: Of the service, and label of its command.
        fields: Any other field of `ServiceSpec`.
    """
    defaults: dict[str, Any] = {
        "command": Command(argv=(name,), label=name),
        "endpoint": "http://127.0.0.1:5800",
        "check_url": "http://127.0.0.1:5800/health",
    }
    return ServiceSpec(name=name, **{**defaults, **fields})
