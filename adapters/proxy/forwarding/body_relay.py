"""Relay of a body that arrives in pieces, without waking the request's task for each piece.

An event stream has a piece for each token. Waking a task costs as much as all else that is done
about a piece, so the callback that read it from the upstream writes it to the client at once. The
task wakes when the client does not keep up, and at the end.
"""

from __future__ import annotations

import asyncio

from ...http1.asgi_types import WriteBody
from ...http1.client.response import UpstreamResponse
from ..accounting.request_record import RequestRecord


class BodyRelay:
    """Listener of a response that passes its pieces on as they arrive.

    Args:
        record: Record of the request.
        response: Response whose headers were sent to the client.
        write: Sends a piece to the client, see `WRITE_BODY`.
    """

    __slots__ = (
        "_arrived", "_arrived_at", "_is_awake", "_loop", "_piece", "_record", "_response",
        "_stall_s", "_timer", "_waiter", "_write",
    )  # fmt: skip

    def __init__(self, record: RequestRecord, response: UpstreamResponse, write: WriteBody) -> None:
        self._record, self._response, self._write = record, response, write
        self._loop = asyncio.get_running_loop()
        self._waiter: asyncio.Future[None]
        self._piece: bytes | None = None  # that was not sent
        self._timer: asyncio.TimerHandle | None = None
        self._stall_s = 0.0
        self._arrived = 0  # bytes of the response at the last check that found more
        self._arrived_at = 0.0  # when that was; loop time in seconds
        self._is_awake = True  # the task is

    async def run(self, stall_s: float | None) -> bytes | None:
        """Pass pieces on until the task has to; return a piece that it has to send first.

        None means that the response is over: `UpstreamResponse.read` returns its rest.

        Args:
            stall_s: Longest time without a byte, in seconds; None means unlimited. Then the
                exchange fails.

        Raises:
            ClientDisconnectedError: The client left or was disconnected.
        """
        response, loop = self._response, self._loop
        if response.is_over or response.chunks:
            return None
        self._waiter = loop.create_future()
        self._piece = None
        self._is_awake = False
        if stall_s is not None:
            self._stall_s = stall_s
            self._arrived, self._arrived_at = response.bytes_received, loop.time()
            self._timer = loop.call_later(stall_s / 10, self._check_stall)
        response.set_listener(self)
        response.take_chunk = self.take_chunk
        try:
            await self._waiter
        finally:
            self._is_awake = True
            response.set_listener(None)
            response.take_chunk = None
            if self._timer is not None:
                self._timer.cancel()
        return self._unsent()

    def _unsent(self) -> bytes | None:
        """Return the piece that was not sent; apart, as mypyc takes it for None behind `await`."""
        return self._piece

    def done(self) -> bool:
        """Return True if the task is awake."""
        return self._is_awake

    def set_result(self, _: None) -> None:
        """Pass on the piece that has arrived, or wake the task."""
        response = self._response
        if response.is_over:
            self._wake()
            return
        piece = response.read_nowait()
        if piece is not None and not self.take_chunk(piece):
            self._piece = piece
            self._wake()

    def take_chunk(self, payload: bytes, chunk: bytes = b"") -> bool:
        """Pass *payload* on, framed as *chunk* if it is; False if that is for the task to do."""
        if self._is_awake:
            return False
        try:
            if not self._write(payload, chunk):
                return False
        except (ConnectionError, RuntimeError, ValueError) as error:
            self._wake(error)
        else:
            self._record.record_piece(payload)
        return True

    def _wake(self, error: Exception | None = None) -> None:
        self._is_awake = True
        if self._waiter.done():  # it was cancelled
            return
        if error is None:
            self._waiter.set_result(None)
        else:
            self._waiter.set_exception(error)

    def _check_stall(self) -> None:
        """Fail a response without a byte for `_stall_s`, or for up to a tenth longer.

        Looking at the clock ten times in that period costs less than looking with each piece.
        """
        now, arrived = self._loop.time(), self._response.bytes_received
        if arrived != self._arrived:
            self._arrived, self._arrived_at = arrived, now
        elif now - self._arrived_at >= self._stall_s:
            self._response.expire("body", self._stall_s)
            return
        self._timer = self._loop.call_later(self._stall_s / 10, self._check_stall)
