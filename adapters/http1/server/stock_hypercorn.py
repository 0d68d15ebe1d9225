"""Timeouts for hypercorn's own HTTP/1.1 connections; imports hypercorn, which is optional."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import h11
from hypercorn.events import Closed, RawData
from hypercorn.protocol.h11 import H11Protocol

from ..half_close import half_close
from ..request_id import FIELD, new_request_id
from .timeouts import BodyClock
from .validation import H1Limits

_READ_BYTES = 1 << 16


class _ConnectionOverError(Exception):
    """The last response of the connection has been sent."""


class LimitedH11(H11Protocol):  # type: ignore[misc, unused-ignore]
    """hypercorn's HTTP/1.1: other versions get 505, HTTP/2 is never used, errors have an id."""

    async def _check_protocol(self, event: Any) -> None:
        if event.http_version not in (b"1.0", b"1.1"):
            await self._send_error_response(505)
            raise _ConnectionOverError

    async def _send_error_response(self, status_code: int) -> None:
        headers = [(b"content-length", b"0"), (b"connection", b"close"), (FIELD, new_request_id())]
        headers += self.config.response_headers("h11")
        await self._send_h11_event(h11.Response(status_code=status_code, headers=headers))
        await self._send_h11_event(h11.EndOfMessage())


class LimitedTCPServer:
    """Methods that replace those of hypercorn's ``TCPServer``; to be combined with that class.

    Attributes:
        limits: Limits of each client.
    """

    limits: H1Limits
    context: Any
    idle_task: Any
    loop: asyncio.AbstractEventLoop
    protocol: Any
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    _ignores_input = False  # what still comes is thrown away

    async def _read_data(self) -> None:
        h11_protocol = self.protocol.protocol
        if type(h11_protocol) is H11Protocol:
            h11_protocol.__class__ = LimitedH11
        with suppress(_ConnectionOverError):
            await self._read_within_limits(h11_protocol)
        await self.protocol.handle(Closed())
        await self.idle_task.stop()  # the connection would last as long

    async def _read_within_limits(self, h11_protocol: Any) -> None:
        since, body = self.loop.time(), BodyClock(self.limits)
        is_in_head, is_in_body = True, False  # the first head is waited for
        while not self.reader.at_eof():
            due = since + self.limits.header_timeout_s if is_in_head else None
            try:
                data = await self._read(due, body if is_in_body else None)
            except TimeoutError:
                if is_in_body and h11_protocol.connection.our_state is not h11.SEND_RESPONSE:
                    is_in_body = False  # the client has a response, and need not send
                    continue
                if is_in_head and h11_protocol.connection.trailing_data[0]:
                    await h11_protocol._send_error_response(408)
                return
            except OSError:
                return
            if self._ignores_input:
                continue
            body.count(began := self.loop.time(), len(data))
            await self.protocol.handle(RawData(data))
            body.wait(self.loop.time() - began)
            state, was_in_head = h11_protocol.connection.their_state, is_in_head
            is_in_head = state is h11.IDLE and bool(h11_protocol.connection.trailing_data[0])
            if is_in_head and not was_in_head:
                since = self.loop.time()
            was_in_body, is_in_body = is_in_body, state is h11.SEND_BODY
            if is_in_body and not was_in_body:
                body.start(self.loop.time())

    async def _read(self, due: float | None, body: BodyClock | None) -> bytes:
        """Return what the client sends next.

        Args:
            due: When a head has to be complete; loop time in seconds. None outside of a head.
            body: Clock of the body that is being received; None outside of a body.

        Raises:
            TimeoutError: It has not come in time.
        """
        if due is not None:
            async with asyncio.timeout_at(due):
                return bytes(await self.reader.read(_READ_BYTES))
        if body is None:
            return bytes(await self.reader.read(_READ_BYTES))
        now = self.loop.time()
        if body.is_too_slow(now):
            raise TimeoutError
        async with asyncio.timeout_at(now + self.limits.body_idle_s):
            return bytes(await self.reader.read(_READ_BYTES))

    async def _initiate_server_close(self) -> None:
        self._ignores_input = True
        await self.protocol.handle(Closed())
        if not self.context.terminated.is_set() and half_close(self.writer.transport):
            await asyncio.sleep(self.limits.linger_s)
        self.writer.close()
