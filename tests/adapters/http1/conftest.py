"""Our HTTP/1.1 server on real sockets, and the event loops of its client's tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tools.h1_server import Server, serving
from tools.loops import needs


@pytest.fixture(scope="module", params=["asyncio", "uvloop", "uvicorn", "uvloop, tls"])
def running(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A server that the tests of a module share; modules replace it to set its limits."""
    with serving(request.param) as server:
        yield server


@pytest.fixture
def server(running: Server) -> Server:
    """The shared server, without what an earlier test left in it."""
    running.calls.clear()
    running.handlers.clear()
    running.draining.clear()
    return running


@pytest.fixture(params=["asyncio", pytest.param("uvloop", marks=needs("uvloop"))])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, bool]]:
    return ("asyncio", {"use_uvloop": request.param == "uvloop"})
