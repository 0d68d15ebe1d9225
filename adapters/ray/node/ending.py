"""End of a process without a proxy: hooks, SIGTERM or the stop command, SIGKILL, hooks.

An ending is what `runtime.ports.Ending.record` returns; the proxy has filled every placeholder.
"""

from __future__ import annotations

import asyncio
import http.client
from collections.abc import Iterable
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

from .child import Child, GuardServer

UNLIMITED_S = 86_400.0


async def carry_out(
    child: Child, ending: dict[str, Any], server: GuardServer, base: dict[str, str], *,
    is_hurried: bool,
) -> None:  # fmt: skip
    """End *child*, and return when its tree and the hooks have ended.

    Args:
        child: The process.
        ending: Its hooks and its grace period.
        server: Starts the hooks.
        base: Environment of commands without their own variables.
        is_hurried: Leave out the hooks before its end.
    """
    has_failed = child.code is not None or child.is_lost
    if not has_failed:
        if not is_hurried:
            await run_steps(ending["before"], server, base)
        grace_s = UNLIMITED_S if ending["grace_s"] is None else float(ending["grace_s"])
        stop = ending["stop"]
        if stop is None or not await run_command(stop, server, base, grace_s):
            child.tell("term")
        child.tell(f"sweep {grace_s}")
    else:
        child.tell("sweep 0")
    await child.ended
    if has_failed:
        await run_steps(ending["failed"], server, base)
    await run_steps(ending["after"], server, base)


async def run_steps(
    steps: Iterable[dict[str, Any]], server: GuardServer, base: dict[str, str]
) -> None:
    """Run the hooks of one point in order, until one that is needed fails."""
    for step in steps:
        is_ok = False
        for attempt in range(int(step["retries"]) + 1):
            if attempt:
                await asyncio.sleep(float(step["delay_s"]))
            limit_s = min(float(step["timeout_s"]), UNLIMITED_S)
            if step["command"] is not None:
                is_ok = await run_command(step["command"], server, base, limit_s)
            else:
                is_ok = await asyncio.to_thread(make_call, step["call"], limit_s)
            if is_ok:
                break
        if not is_ok and step["is_needed"]:
            return


async def run_command(
    command: dict[str, Any], server: GuardServer, base: dict[str, str], limit_s: float
) -> bool:
    """Run a command, whose tree is killed at the limit; return True if it exits with 0."""
    changed = asyncio.Event()
    facts = {"id": "hook", "grace_s": 0.0, "lease_s": 0.0, "cwd": command["cwd"]}
    child = Child(facts, lambda _: changed.set())
    try:
        child.spawn(server, list(command["argv"]), {**base, **command["env"]})
        if await child.spawned:
            return False
        with suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                while child.code is None and not child.is_lost:
                    changed.clear()
                    await changed.wait()
    except OSError:
        return False
    finally:
        if child.pid and not child.is_lost:
            child.tell("kill")
            await child.ended
        child.close()
    return child.code == 0


def make_call(call: dict[str, Any], limit_s: float) -> bool:
    """Make an HTTP call; return True if its status is an expected one; blocks."""
    url = urlsplit(call["url"])
    kinds = {"http": http.client.HTTPConnection, "https": http.client.HTTPSConnection}
    try:
        connection = kinds[url.scheme](url.netloc.rpartition("@")[2], timeout=limit_s)
        target = f"{url.path or '/'}{f'?{url.query}' if url.query else ''}"
        body = None if call["body"] is None else call["body"].encode("latin-1")
        connection.request(call["method"], target, body=body, headers=call["headers"])
        status = connection.getresponse().status
        connection.close()
    except (OSError, http.client.HTTPException, KeyError, ValueError):
        return False
    return status in (call["expect"] or range(200, 300))
