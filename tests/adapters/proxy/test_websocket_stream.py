"""How a tunnel of bytes waits and ends, by the clock; frames, byte by byte."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tools.websocket_frames import BINARY, CLOSE, PING, TEXT, frame

from swapchart.adapters.proxy.forwarding.websocket_frames import FrameTracker, close_frame
from swapchart.adapters.proxy.forwarding.websocket_stream import Flow, StalledError, Tunnel
from swapchart.runtime.testing import run_virtual

MIB = 1 << 20


# ---- frames
FRAMES = st.lists(
    st.builds(
        frame,
        st.sampled_from([0, TEXT, BINARY, PING]),
        st.binary(max_size=300) | st.integers(120, 70_000).map(bytes),
        is_last=st.booleans(),
        is_masked=st.booleans(),
    ),
    max_size=6,
)


@given(FRAMES, st.integers(0, 1 << 20), st.integers(1, 5))
def test_tracker_fed_in_any_pieces_knows_where_frames_begin(
    frames: list[bytes], cut: int, step: int
) -> None:
    """Cut anywhere, the position is between two frames exactly where one has ended."""
    data = b"".join(frames)
    cut = min(cut, len(data))
    ends = {0}
    for item in frames:
        ends.add(max(ends) + len(item))
    tracker = FrameTracker()
    tracker.feed(data[: max(cut - 12, 0)])
    for at in range(max(cut - 12, 0), cut, step):
        tracker.feed(data[at : min(at + step, cut)])
        assert tracker.is_between == (min(at + step, cut) in ends)

    tracker.feed(data[cut:])
    assert tracker.is_between
    assert not tracker.is_closing


@pytest.mark.parametrize("is_masked", [False, True])
def test_tracker_of_a_close_frame_sees_it(is_masked: bool) -> None:
    """A close frame between the fragments of a message is seen, and one in a payload is none."""
    tracker = FrameTracker()
    tracker.feed(frame(TEXT, frame(CLOSE), is_last=False, is_masked=is_masked))
    assert not tracker.is_closing
    tracker.feed(frame(CLOSE, b"\x03\xe8", is_masked=is_masked))

    assert tracker.is_closing
    assert tracker.is_between


def test_tracker_of_a_huge_frame_waits_for_its_end() -> None:
    """A frame of eight exabytes is under way for ever."""
    tracker = FrameTracker()
    tracker.feed(frame(BINARY, size=(1 << 63) - 1))
    tracker.feed(bytes(MIB))

    assert not tracker.is_between


def test_tracker_of_tiny_frames_gives_up() -> None:
    """A stream that costs too much to follow is between no frames, so nothing is put into it."""
    tracker = FrameTracker()
    tracker.feed(frame(BINARY) * 1000)
    assert tracker.is_between
    tracker.feed(frame(BINARY) * 30_000)

    assert not tracker.is_between


def test_close_frame_is_complete_and_unmasked() -> None:
    """The frame that is put in is whole, unmasked, and says why."""
    assert close_frame(1001, "bye") == frame(CLOSE, b"\x03\xe9bye")


# ---- a side that does not read
class Sink:
    """A side that takes what it is told to."""

    def __init__(self) -> None:
        self.unsent = self.undelivered = 0
        self.is_full = False
        self.written = b""
        self._taken = asyncio.Event()

    def write(self, data: bytes) -> None:
        self.written += data[-200:]
        self.unsent += len(data)
        self.undelivered += len(data)
        self.is_full = True
        self._taken.clear()

    async def drain(self) -> None:
        if self.is_full:
            await self._taken.wait()

    def take(self, size: int) -> None:
        """Take *size* bytes."""
        self.undelivered = max(self.undelivered - size, 0)
        self.unsent = min(self.unsent, self.undelivered)
        if not self.unsent:
            self.is_full = False
            self._taken.set()


def now() -> float:
    return asyncio.get_running_loop().time()


def test_flow_to_a_slow_side_pauses_the_other() -> None:
    """While a side takes something, nothing more is read for it, however long that lasts."""

    async def main() -> None:
        sink = Sink()
        flow = Flow(sink, 10.0)
        passing = asyncio.ensure_future(flow.pass_on(bytes(MIB)))
        for _ in range(100):
            await asyncio.sleep(0.4)
            assert not passing.done()
            sink.take(1)
        sink.take(MIB)
        await passing
        flow.close()

    run_virtual(main)


def test_flow_to_a_side_that_only_the_kernel_sees_reading_is_not_cut() -> None:
    """A slow side whose socket takes nothing for minutes, as its buffer is large, is not stuck."""

    async def main() -> None:
        sink = Sink()
        flow = Flow(sink, 10.0)
        sink.undelivered = 4 * MIB  # in the kernel, before what is in memory
        passing = asyncio.ensure_future(flow.pass_on(bytes(16 * MIB)))
        for _ in range(600):
            await asyncio.sleep(0.4)
            assert not passing.done()
            sink.undelivered -= 1000
        assert sink.unsent == 16 * MIB
        sink.take(20 * MIB)
        await passing
        flow.close()

    run_virtual(main)


def test_flow_to_a_stuck_side_reads_on_within_a_bound_and_then_ends() -> None:
    """After half a second 16 MiB more are taken at once, and ten seconds later it is over."""

    async def main() -> None:
        sink, begin = Sink(), now()
        flow = Flow(sink, 10.0)
        for _ in range(15):
            await flow.pass_on(bytes(MIB))
        assert now() - begin == pytest.approx(0.5)
        with pytest.raises(StalledError):
            await flow.pass_on(bytes(MIB))
        assert now() - begin == pytest.approx(10.5)
        assert sink.unsent == 16 * MIB
        flow.close()

    run_virtual(main)


def test_flow_to_a_side_that_reads_again_goes_on_as_before() -> None:
    """A side that was stuck and takes all is waited for once more when it is stuck again."""

    async def main() -> None:
        sink, begin = Sink(), now()
        flow = Flow(sink, 10.0)
        for _ in range(2):
            await flow.pass_on(bytes(MIB))
            await flow.pass_on(bytes(MIB))
            passing = asyncio.ensure_future(flow.pass_on(b"x"))
            await asyncio.sleep(0)
            sink.take(3 * MIB)
            await passing
        assert now() - begin == pytest.approx(1.0)
        flow.close()

    run_virtual(main)


def test_flows_together_hold_no_more_than_their_common_bound() -> None:
    """128 MiB wait for stuck sides at most; what is beyond waits ten seconds, and ends."""

    async def main() -> None:
        flows = [Flow(Sink(), 10.0) for _ in range(12)]

        async def pour(flow: Flow) -> int:
            for count in range(20):
                try:
                    await flow.pass_on(bytes(MIB))
                except StalledError:
                    return count + 1
            raise AssertionError("it never ended")

        counts = await asyncio.gather(*map(pour, flows))
        assert 128 <= sum(counts) <= 128 + 2 * len(flows)
        for flow in flows:
            flow.close()
        assert await pour(Flow(Sink(), 10.0)) == 16

    run_virtual(main)


# ---- ends
class Side(Sink):
    """Client or model of a tunnel: says what is put into ``says``, and takes all at once."""

    def __init__(self) -> None:
        super().__init__()
        self.left: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.finished: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.says: asyncio.Queue[bytes] = asyncio.Queue()
        self.has_no_more = False

    def write(self, data: bytes) -> None:
        self.written += data

    async def read(self) -> bytes:
        return await self.says.get()

    def end_writing(self) -> None:
        self.has_no_more = True


def tunnel() -> tuple[Side, Side, asyncio.Task[None]]:
    client, model = Side(), Side()
    running = Tunnel(cast("Any", client), cast("Any", model)).run()
    return client, model, asyncio.get_running_loop().create_task(running)


def test_tunnel_whose_model_ends_sends_close_to_the_client() -> None:
    """The client is told why, behind the last whole frame."""

    async def main() -> None:
        client, model, running = tunnel()
        model.says.put_nowait(frame(TEXT, b"hello"))
        model.says.put_nowait(b"")
        await running
        assert client.written == frame(TEXT, b"hello") + close_frame(
            1001, "the model's server is gone"
        )

    run_virtual(main)


@pytest.mark.parametrize(
    "last",
    [frame(TEXT, b"hello")[:-1], frame(CLOSE, b"\x0f\xa0"), frame(BINARY) * 30_000],
    ids=["within a frame", "closed by itself", "tiny frames"],
)
def test_tunnel_whose_model_ends_inserts_no_frame_into_a_message(last: bytes) -> None:
    """Within a frame, or behind the model's own close frame, nothing of ours is said."""

    async def main() -> None:
        client, model, running = tunnel()
        model.says.put_nowait(last)
        model.says.put_nowait(b"")
        await running
        assert client.written == last

    run_virtual(main)


def test_tunnel_whose_client_ends_waits_a_second_for_the_model() -> None:
    """The model hears of the end, what it says is passed, and it is free soon."""

    async def main() -> None:
        client, model, running = tunnel()
        begin, closing = now(), frame(CLOSE, b"\x0f\xa0", is_masked=True)
        client.says.put_nowait(closing)
        client.says.put_nowait(b"")
        client.left.set_result(None)
        await asyncio.sleep(0.5)
        assert model.written == closing
        assert model.has_no_more
        model.says.put_nowait(frame(CLOSE, b"\x0f\xa0"))
        await running
        assert client.written == frame(CLOSE, b"\x0f\xa0")
        assert now() - begin == pytest.approx(1.0)

    run_virtual(main)


@pytest.mark.parametrize("is_client", [False, True])
def test_tunnel_whose_close_handshake_never_ends_is_over_in_ten_seconds(is_client: bool) -> None:
    """A close frame that the other side never answers holds no model."""

    async def main() -> None:
        client, model, running = tunnel()
        await asyncio.sleep(1000.0)
        begin = now()
        side = client if is_client else model
        side.says.put_nowait(frame(CLOSE, is_masked=is_client))
        await running
        assert now() - begin == pytest.approx(10.0)

    run_virtual(main)


def test_tunnel_that_is_cancelled_sends_close_to_the_client() -> None:
    """Whoever ends a tunnel from outside, its client hears that we go away."""

    async def main() -> None:
        client, _, running = tunnel()
        await asyncio.sleep(1.0)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert client.written == close_frame(1001)

    run_virtual(main)
