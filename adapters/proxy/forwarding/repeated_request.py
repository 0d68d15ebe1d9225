"""A request whose start has just failed gets the same error again, and starts nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from ....runtime import StartError
from ..accounting.request_record import RequestRecord
from ..context import ProxyContext
from ..models.failed_starts import comparable, digest_steps

_LARGE_BYTES = 1 << 16  # a body that is hashed in turns
#: Phases in which a request would start its model; otherwise it is started for another request.
_AT_REST = frozenset({"stopped", "stopping", "failed"})


@asynccontextmanager
async def starting_once(
    context: ProxyContext, record: RequestRecord, target: bytes, body: object
) -> AsyncIterator[None]:
    """Acquire the model of a request in this block, unless its start failed a moment ago.

    Args:
        context: What all requests share.
        record: Of the request.
        target: Path and query for the upstream.
        body: Of the request; only a complete one, or none, is compared with that of others.

    Raises:
        RequestError: The error of the start that failed, or what the block raises.
    """
    failed, name = context.failed_starts, record.model
    epoch = failed.epoch
    if name in failed and _is_at_rest(context, name):
        digest = await _digest(context, record, target, body)
        error = None if digest is None else failed.error(name, digest)
        if error is not None:
            raise error
    try:
        yield
    except StartError as error:
        digest = await _digest(context, record, target, body)
        if digest is not None and failed.epoch == epoch:
            failed.remember(name, digest, error)
        raise


def _is_at_rest(context: ProxyContext, name: str) -> bool:
    entry = context.supervisor.scheduler.services.get(name)
    return entry is not None and entry.phase in _AT_REST


async def _digest(
    context: ProxyContext, record: RequestRecord, target: bytes, body: object
) -> bytes | None:
    """Return the digest of a request, or None if its body is still on its way."""
    content = b"" if body is None else body
    if not isinstance(content, bytes):
        return None
    request = record.request
    client = request.access.client or request.client or ""
    is_short = len(content) <= _LARGE_BYTES
    return await context.turns.run(
        digest_steps(client, record.method, target, comparable(content)), is_short=is_short
    )
