"""A request notices the disconnect of its client while it waits."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from swapchart.adapters.http1.server.extensions import ON_DISCONNECT
from swapchart.adapters.proxy.request import Request

Callback = Callable[[], None] | None


async def watched(extensions: dict[str, Any], messages: list[dict[str, Any]]) -> Request:
    """Return a request whose body is read, and whose disconnect is watched for."""

    async def receive() -> dict[str, Any]:
        if not messages:
            await asyncio.Event().wait()
        return messages.pop(0)

    scope = {"type": "http", "method": "POST", "path": "/", "headers": [], "extensions": extensions}
    request = Request(scope, receive)
    await request.body(100)
    request.watch(asyncio.ensure_future(asyncio.sleep(3600)))
    request._watch_now()
    return request


BODY = {"type": "http.request", "body": b"{}", "more_body": False}


def test_watch_with_complete_body_registers_a_callback_and_starts_no_task() -> None:
    """A waiting request takes no task for its disconnect where the server calls back."""

    async def check() -> None:
        callbacks: list[Callback] = []
        request = await watched({ON_DISCONNECT: callbacks.append}, [BODY])
        task = request._task
        assert task is not None
        assert len(asyncio.all_tasks()) == 2  # this one and that of the request
        request._watch_now()  # the timer fires again
        (callback,) = callbacks
        assert callback is not None
        callback()
        await asyncio.wait([task])

        assert task.cancelled()
        assert request.is_gone
        request.unwatch()
        assert callbacks == [callback, None]

    asyncio.run(check())


@pytest.mark.parametrize("messages", [[BODY, {"type": "http.disconnect"}]])
def test_watch_under_another_server_receives_the_disconnect(messages: list[dict[str, Any]]) -> None:
    """Without the callback a task waits for ``http.disconnect``."""

    async def check() -> None:
        request = await watched({}, messages)
        task = request._task
        assert task is not None
        await asyncio.wait([task])

        assert task.cancelled()
        request.unwatch()

    asyncio.run(check())
