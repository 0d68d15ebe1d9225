"""Switch of tracing; nothing of OpenTelemetry is imported where it is off."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from .missing import check_tracing
from .port import Tracing


@asynccontextmanager
async def tracing_if(is_wanted: bool) -> AsyncIterator[Tracing | None]:
    """Trace for as long as the block lasts; None if it is not wanted.

    Raises:
        TracingMissingError: A package is not installed; the text says what to install.
    """
    check_tracing(is_wanted=is_wanted)
    if not is_wanted:
        yield None
        return
    from .provider import tracing

    async with tracing() as found:
        yield found
