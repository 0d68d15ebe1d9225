"""Routes for the saved prompt caches of models."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs

import msgspec

from ..body.model_name import quoted_name
from ..context import ProxyContext
from ..request import Request
from ..responses import ApiError
from .handler import ApiHandler
from .models import limit_of, local_model
from .schema.kv import KvFacts, KvLimits, Purged, SavedCache, SavedConversation

MOST_CONVERSATIONS = 1000
_NOTHING: dict[str, Any] = {
    "facts": None, "directory": None, "memory_directory": None, "settings": None, "bytes": 0,
    "tokens": 0, "total": 0, "conversations": [],
}  # fmt: skip


@ApiHandler
async def saved(proxy: ProxyContext, request: Request) -> SavedCache:
    """Return what is kept of a model, and the conversations that were used last."""
    name = local_model(proxy, request)
    count = limit_of(request, default=100, most=MOST_CONVERSATIONS)
    words = parse_qs(request.query.decode("latin-1")).get("words", ["false"])[-1]
    if words not in ("true", "false"):
        raise ApiError(400, f"words: expected true or false, got {quoted_name(words)}")
    found = _NOTHING
    if proxy.saved_caches is not None:
        found = await proxy.saved_caches.describe(name, count, shows_words=words == "true")
    view, facts = proxy.view(request.access), found["facts"]
    if facts is not None and facts["problem"]:
        facts = {**facts, "problem": view.text(facts["problem"])}
    return SavedCache(
        model=name, mode=proxy.catalog.models[name].kv_mode,
        facts=None if facts is None else msgspec.convert(facts, KvFacts),
        directory=found["directory"], memory_directory=found["memory_directory"],
        limits=None if found["settings"] is None else msgspec.convert(found["settings"], KvLimits),
        bytes=found["bytes"], tokens=found["tokens"], total=found["total"],
        conversations=msgspec.convert(found["conversations"], list[SavedConversation]),
    )  # fmt: skip


@ApiHandler
async def purge(proxy: ProxyContext, request: Request) -> Purged:
    """Remove all that is kept of a model."""
    name = local_model(proxy, request)
    try:
        removed = None if proxy.saved_caches is None else await proxy.saved_caches.purge(name)
    except OSError as error:
        raise ApiError(503, str(error)) from error
    if removed is None:
        raise ApiError(409, f"nothing is kept of model {name} by this proxy")
    return Purged(removed=removed)
