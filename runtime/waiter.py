"""Pending request: waits until it is admitted or refused."""

from __future__ import annotations

import anyio

from .errors import RequestError


class PendingRequest:
    """A request without a decision; either `admit` or `refuse` is called, once.

    Attributes:
        admitted: The decision; None before it.
        error: Error of a refused request, or None.
    """

    __slots__ = ("_event", "admitted", "error")

    def __init__(self) -> None:
        self.admitted: bool | None = None
        self.error: RequestError | None = None
        self._event: anyio.Event | None = None

    def admit(self) -> None:
        """Admit the request."""
        assert self.admitted is None, "decided twice"
        self.admitted = True
        if self._event is not None:
            self._event.set()

    def refuse(self, error: RequestError) -> None:
        """Refuse the request with *error*."""
        assert self.admitted is None, "decided twice"
        self.admitted, self.error = False, error
        if self._event is not None:
            self._event.set()

    async def wait(self) -> None:
        """Wait for the decision.

        Raises:
            RequestError: The request was refused.
        """
        if self.admitted is None:
            self._event = anyio.Event()
            await self._event.wait()
        if self.error is not None:
            raise self.error
