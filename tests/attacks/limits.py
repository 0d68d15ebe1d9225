"""Attacks on limits (listeners, queues, names, paths, expressions)."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from tools.net import wait_until

from .entry import Attack
from .target import Target

_LINE = b"x" * 199 + b"\n"
_MOST = 256  # listeners that are let in, as `listeners.limit` says by default


@contextlib.contextmanager
def _not_reading(target: Target, path: str, count: int) -> Iterator[list[int]]:
    """Open *count* connections that ask for *path* and read the status only; gives those."""
    with contextlib.ExitStack() as stack:
        statuses = []
        for _ in range(count):
            connection = stack.enter_context(socket.socket())
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.settimeout(30.0)
            connection.connect(("127.0.0.1", target.port))
            connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            head = b""
            while len(head) < 12:
                data = connection.recv(12 - len(head))
                assert data, head
                head += data
            statuses.append(int(head[9:12]))
        yield statuses


def _listen_and_read_nothing(target: Target, path: str) -> None:
    target.output_of_hostile(*[_LINE * 300] * 20)  # 1.2 MB that each listener begins with
    with _not_reading(target, path, 400) as statuses:
        assert statuses.count(200) == _MOST
        assert statuses.count(429) == 400 - _MOST
        target.output_of_hostile(*[_LINE * 100] * 6)

    def is_let_in() -> bool:
        with _not_reading(target, path, 1) as again:
            return again == [200]

    wait_until(is_let_in, 15.0, what="room after the others have left")


def listeners_to_events_that_read_nothing(target: Target) -> None:
    """400 clients of /api/events that read nothing: 256 are let in, and hold little."""
    _listen_and_read_nothing(target, "/api/events")


def listeners_to_logs_that_read_nothing(target: Target) -> None:
    """The same for the stream of all logs."""
    _listen_and_read_nothing(target, "/logs/stream")


def readers_of_the_log_that_read_nothing(target: Target) -> None:
    """400 clients of /logs that read nothing share what is kept."""
    target.output_of_hostile(*[_LINE * 300] * 20)
    with _not_reading(target, "/logs", 400) as statuses:
        assert set(statuses) == {200}


_PAIRS = 9
_SLEEPERS = [f"{half}{number}" for number in range(_PAIRS) for half in "ab"]
_SLEEPER = {"cmd": ["sleep", "600"], "proxy": "http://127.0.0.1:1", "checkEndpoint": "none"}
_MATRIX: dict[str, Any] = {
    "models": dict.fromkeys((*_SLEEPERS, "last"), _SLEEPER),
    "matrix": {
        "sets": {
            "pairs": " & ".join(f"(a{number} | b{number})" for number in range(_PAIRS)),
            "all": "+pairs & +pairs & +pairs & demo & hostile & last",
        }
    },
}


def _runs(target: Target, name: str) -> bool:
    return name in target.proxy.running()


def matrix_whose_sets_share_everything(target: Target) -> None:
    """A choice among 18 running models whose sets share everything keeps all of them, at once."""
    names = [*_SLEEPERS, "last"]
    for name in names:
        assert target.call("POST", "/models/load", value={"model": name}).status == 200
        wait_until(partial(_runs, target, name), 15.0, what=f"{name} runs")
    assert set(names) <= target.proxy.running().keys()
    for name in names:
        assert target.call("POST", f"/api/models/unload/{name}").status == 200


_LINES = 20_000
_MODEL = "models:\n  m:\n    cmd: s ${PORT}\n"
_DOCUMENTS = (
    _MODEL + "    description: |\n" + "".join(f"      ${{x{i}}}\n" for i in range(_LINES)),
    _MODEL + "    description: |\n" + "".join(f"      ${{env.x{i}}}\n" for i in range(_LINES)),
    "performance: {every: '" + "1" * 1_000_000 + "'}\n",
    _MODEL + "matrix: {sets: {a: 'm" + " " * 1_000_000 + "'}}\n",
    "x-a: &a '" + "x" * 1_000_000 + "'\nx-b: [" + "*a ," * 50_000 + "]\n",
    "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 60)),
    "a: " + "[" * 100_000,
    _MODEL + "lifecycle: {guards: {idle: \"'a' * 999999999\"}}\n",
    _MODEL + "lifecycle: " + "{states: " * 40 + "{}" + "}" * 40 + "\n",
    "".join(f"unknown{i}: 1\n" for i in range(_LINES)),
    "? " + "k" * 1_000_000 + "\n: 1\n",
)


def configurations_that_grow_when_they_are_read(target: Target) -> None:
    """A plan for a reload of any file is made or refused, in little memory."""
    path = Path(target.proxy.folder, "config.yaml")
    text = path.read_text()
    try:
        for document in _DOCUMENTS:
            path.write_text(document)
            answer = target.call("POST", "/api/config/plan")
            assert answer.status in (200, 400, 409, 422), (document[:60], answer.body[:200])
            assert len(answer.body) < 2 << 20, document[:60]
    finally:
        path.write_text(text)


ATTACKS: tuple[Attack, ...] = (
    Attack(listeners_to_events_that_read_nothing, growth_mib=140),
    Attack(listeners_to_logs_that_read_nothing, growth_mib=60),
    Attack(readers_of_the_log_that_read_nothing, growth_mib=60),
    Attack(matrix_whose_sets_share_everything, config=_MATRIX, growth_mib=24),
    Attack(configurations_that_grow_when_they_are_read, growth_mib=160),
)
