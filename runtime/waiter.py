"""A request that waits for its service, and the answer it gets."""

from __future__ import annotations

import anyio

from .errors import RequestError


class PendingRequest:
    """Waits to be admitted; whoever decides calls `admit` or `refuse`, once.

    Attributes:
        admitted: True, False, or None while nothing was decided.
        error: Why it was refused.
    """

    __slots__ = ("_event", "admitted", "error")

    def __init__(self) -> None:
        self.admitted: bool | None = None
        self.error: RequestError | None = None
        self._event: anyio.Event | None = None

    def admit(self) -> None:
        """Let it go on."""
        assert self.admitted is None, "decided twice"
        self.admitted = True
        if self._event is not None:
            self._event.set()

    def refuse(self, error: RequestError) -> None:
        """Send it away with *error*."""
        assert self.admitted is None, "decided twice"
        self.admitted, self.error = False, error
        if self._event is not None:
            self._event.set()

    async def wait(self) -> None:
        """Wait for the decision.

        Raises:
            RequestError: It was refused.
        """
        if self.admitted is None:
            self._event = anyio.Event()
            await self._event.wait()
        if self.error is not None:
            raise self.error
