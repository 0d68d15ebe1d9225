"""The pump moves bounded pieces, and the cap counts what it drops."""

import os

import anyio
import anyio.lowlevel
import pytest
from tools.rows import row

from swapchart.adapters.process import output
from swapchart.adapters.process.output import CappedSink, OutputPump
from swapchart.runtime.log_ring import LogRing

pytestmark = pytest.mark.anyio


@row("A21")
async def test_output_pump_one_turn_is_bounded() -> None:
    """However much a pipe holds, one turn moves about as much as it was allowed."""
    near, far = os.pipe()
    log = LogRing()
    pump = OutputPump(near, log)
    os.write(far, bytes(200_000))
    pump.read_nowait(65_536)
    assert log.total_bytes == 65_536
    pump.read_nowait()
    assert log.total_bytes == 200_000
    os.close(far)
    await pump.run()

    assert pump.closed.is_set()
    pump.read_nowait()
    pump.stop()
    assert log.total_bytes == 200_000


@row("A21")
async def test_output_pump_between_two_turns_other_tasks_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A pump that always finds more to read lets the event loop go on after each turn."""
    monkeypatch.setattr(output, "TURN_BYTES", 65_536)
    near, far = os.pipe()
    turn, seen = 0, []

    class Sink:
        def write(self, data: bytes) -> None:
            seen.append((turn, len(data)))

    async with anyio.create_task_group() as tasks:
        pump = OutputPump(near, Sink())
        os.write(far, bytes(200_000))
        os.close(far)
        tasks.start_soon(pump.run)
        while not pump.closed.is_set():
            turn += 1
            await anyio.lowlevel.checkpoint()

    assert sum(size for _, size in seen) == 200_000
    assert len({turn for turn, _ in seen}) == 4


@row("B06")
def test_output_cap_is_exact() -> None:
    """Output above the limit is dropped and reported once; below it nothing is reported."""
    log = LogRing()
    sink = CappedSink(log, 5)
    sink.write(b"abc")
    sink.finish()
    assert log.history() == b"abc"
    sink.write(b"defgh")
    sink.write(b"i")
    sink.finish()
    sink.finish()

    assert log.history() == b"abcde\n[4 bytes of output dropped]\n"
