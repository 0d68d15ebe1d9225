"""Forwarding of a request in a slot that was chosen for its conversation.

Only requests to models with a library of conversations come here; see ``ProxyContext``.
"""

from __future__ import annotations

from time import perf_counter

from ..models.catalog import LocalModel
from .forwarding import Forwarding


async def send_in_slot(forwarding: Forwarding, local: LocalModel) -> None:
    """Choose a slot for a request to *local*, which is acquired; then send and relay.

    Raises:
        UpstreamError: See `Forwarding.send` and `Forwarding.relay`.
    """
    context, record, assigned = forwarding.context, forwarding.record, None
    record.admitted = perf_counter()
    if context.conversations is not None and record.method == b"POST":
        body = forwarding.body if isinstance(forwarding.body, bytes) else None
        namespace = forwarding.request.access.namespace
        path = record.path
        assigned = await context.conversations(local.definition.id, path, body, namespace)
    try:
        if assigned is not None:
            forwarding.body = assigned.body
        upstream = context.upstreams.of_model(local.definition)
        response = await forwarding.send(upstream, forwarding.header_lines(local, upstream))
        await forwarding.relay(upstream, response)
    finally:
        if assigned is not None:
            record.cache = assigned.finish(record)
