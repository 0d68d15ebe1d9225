"""The corpus of raw requests against a whole proxy.

What the servers' own layers make of them is theirs; docs/reliability.md has the table, and here
they are held only to go on serving.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tools import raw
from tools.rows import row
from tools.swapchart_process import Journal, Serve, SwapchartProcess
from tools.wire import REFUSED, SMUGGLED

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", params=["hypercorn", "uvicorn"])
def witnessed(
    serve_module: Serve, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[tuple[SwapchartProcess, Journal]]:
    journal = Journal(tmp_path_factory.mktemp("wire") / "journal")
    proxy = serve_module({"a": journal.model("a")}, server=request.param)
    assert proxy.chat("a").status == 200
    yield proxy, journal
    assert proxy.chat("a").status == 200


@pytest.mark.parametrize("name", REFUSED)
@row("C03", "C04", "C05", "C06")
def test_ambiguous_requests_are_refused(
    witnessed: tuple[SwapchartProcess, Journal], name: str
) -> None:
    """Each is refused, the connection ends, and what stands behind it is no request."""
    proxy, journal = witnessed
    status, data = REFUSED[name]
    before = len(journal.words("request"))
    with raw.Connection(proxy.port) as client:
        client.send(data.replace(b" / ", b" /upstream/a/ ", 1) + SMUGGLED)
        answer = client.read_answer()
        rest = client.read_all()

    assert (answer.status, rest) == (status, b"")
    assert answer.header("connection") == "close"
    assert answer.json()["error"]["message"]
    assert len(journal.words("request")) == before


@pytest.mark.parametrize("server", ["hypercorn --stock", "uvicorn --stock"])
@row("C03", "C04")
def test_stock_layers_go_on_serving(serve: Serve, server: str) -> None:
    """After each request of the corpus the next client is served."""
    proxy = serve({}, server=server)
    for _, data in REFUSED.values():
        with raw.Connection(proxy.port, timeout_s=0.05) as client:
            try:
                client.send(data + SMUGGLED)
                client.read_all()
            except TimeoutError:
                pass
    proxy.may_log = "h11|Invalid|hypercorn"

    assert raw.status(proxy.port) == 200
