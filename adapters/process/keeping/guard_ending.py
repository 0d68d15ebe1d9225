"""End of one run without a proxy: hooks, SIGTERM or the stop command, SIGKILL, hooks.

`guard_keeping` imports it in a process of its own for each run, so it may use all of the standard
library. The record of the run has the ending as `runtime.ports.Ending` describes it. The record of
a container has the commands of its engine that send its stop signal and remove it.
"""

from __future__ import annotations

import http.client
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

_POLL_S = 0.02
_UNLIMITED_S = 86_400.0
_ENGINE_LIMIT_S = 30.0  # of one command of a container engine


def carry_out(guard: Any, facts: Mapping[str, Any], *, has_failed: bool) -> None:
    """End the run that *facts* describe.

    Args:
        guard: Module `guard_process`.
        facts: Record of the run.
        has_failed: Its leader has ended by itself.
    """
    ending, base = facts["ending"], facts["environment"]
    leader, start = int(facts["pid"]), int(facts["start"])
    container: Mapping[str, Any] | None = facts.get("container")

    def is_alive() -> bool:
        found = guard.read_stat(leader)
        return found is not None and found[1] == start and found[0][0] not in (b"Z", b"X")

    if not has_failed:
        run_steps(ending["before"], base)
        grace_s = _UNLIMITED_S if ending["grace_s"] is None else float(ending["grace_s"])

        def terminate() -> None:
            if container is not None:
                _run(_engine(container["kill"]), base, _ENGINE_LIMIT_S)
            else:
                _terminate(guard, leader)

        _stop(ending["stop"], base, grace_s, is_alive, terminate)
    if container is not None:
        _run(_engine(container["remove"]), base, _ENGINE_LIMIT_S)
    marks = guard.Marks()
    marks.instances.append((f"\0SWAPCHART_RUN={facts['run']}\0".encode(), int(facts["tag"]), 0))
    marks.groups[leader] = start
    guard.terminate_all(marks)
    if facts["cgroup"]:
        with suppress(OSError):  # it holds an engine, or the kernel is old
            guard.remove_cgroup(facts["cgroup"])
            os.rmdir(os.path.dirname(facts["cgroup"]))  # noqa: PTH106, PTH120
    if has_failed:
        run_steps(ending["failed"], base)
    run_steps(ending["after"], base)


def _terminate(guard: Any, leader: int) -> None:
    for signum in (signal.SIGTERM, signal.SIGCONT):
        try:
            os.killpg(leader, signum)
        except OSError:
            guard.send(leader, signum)


def _engine(argv: list[str]) -> Mapping[str, Any]:
    return {"argv": argv, "env": {}, "cwd": None}


def _stop(
    stop: Mapping[str, Any] | None, base: Mapping[str, str], grace_s: float,
    is_alive: Callable[[], bool], terminate: Callable[[], None],
) -> None:  # fmt: skip
    """Run the stop command, or call *terminate*, and wait for the end of the leader."""
    deadline = time.monotonic() + grace_s
    has_stopped = stop is not None and _run(stop, base, grace_s)
    if not has_stopped and is_alive():
        terminate()
    while is_alive() and time.monotonic() < deadline:
        time.sleep(_POLL_S)


def run_steps(steps: Iterable[Mapping[str, Any]], base: Mapping[str, str]) -> None:
    """Run the hooks of one point in order, until one that is needed fails."""
    for step in steps:
        for attempt in range(int(step["retries"]) + 1):
            if attempt:
                time.sleep(float(step["delay_s"]))
            if step["command"] is not None:
                is_ok = _run(step["command"], base, float(step["timeout_s"]))
            else:
                is_ok = _call(step["call"], float(step["timeout_s"]))
            if is_ok:
                break
        else:
            if step["is_needed"]:
                return


def _run(command: Mapping[str, Any], base: Mapping[str, str], timeout_s: float) -> bool:
    """Run a command in a session of its own; it and its session are killed at the limit."""
    try:
        process = subprocess.Popen(
            command["argv"], env={**base, **command["env"]}, cwd=command["cwd"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip
    except (OSError, ValueError):
        return False
    try:
        return process.wait(min(timeout_s, _UNLIMITED_S)) == 0
    except subprocess.TimeoutExpired:
        return False
    finally:
        with suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _call(call: Mapping[str, Any], timeout_s: float) -> bool:
    """Make an HTTP call; return True if its status is an expected one."""
    url = urlsplit(call["url"])
    kinds = {"http": http.client.HTTPConnection, "https": http.client.HTTPSConnection}
    try:
        connection = kinds[url.scheme](url.netloc.rpartition("@")[2], timeout=timeout_s)
        target = f"{url.path or '/'}{f'?{url.query}' if url.query else ''}"
        body = None if call["body"] is None else call["body"].encode("latin-1")
        connection.request(call["method"], target, body=body, headers=dict(call["headers"]))
        status = connection.getresponse().status
        connection.close()
    except (OSError, http.client.HTTPException, KeyError, ValueError):
        return False
    return status in (call["expect"] or range(200, 300))
