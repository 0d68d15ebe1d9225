"""Routes that list models and describe them; nothing is loaded, and nothing is changed."""

from __future__ import annotations

import math
from hashlib import sha256
from time import time

import msgspec

from ....http1.asgi_types import Send
from ...context import ProxyContext
from ...formatting import rfc3339
from ...models.catalog import LocalModel
from ...models.definitions import NO_CAPABILITIES, Capabilities
from ...models.public_state import public_state
from ...models.tags import known_name, tagged
from ...request import Request
from ...responses import model_forbidden, send_text, unknown_model
from .. import model_listing
from ..handler import ApiHandler
from ..schema.ollama import (
    FileFacts,
    ListedModel,
    ListedModels,
    LoadedModel,
    LoadedModels,
    ModelDetails,
    ModelFacts,
    OllamaVersion,
)
from . import bodies
from .bodies import NameBody

#: The oldest version that has all of this; VS Code wants 0.6.4 or newer.
VERSION = "0.12.6"
_STARTED = rfc3339(time())
_NEVER = "2318-01-01T00:00:00.000Z"
_LOADED = frozenset({"starting", "ready", "sleeping"})
_UNKNOWN = FileFacts()


async def running(proxy: ProxyContext, request: Request, send: Send) -> None:
    """Say that the server runs, by which clients recognize Ollama."""
    await send_text(send, "Ollama is running")


@ApiHandler
async def version(proxy: ProxyContext, request: Request) -> OllamaVersion:
    """Return the version of Ollama whose API this is."""
    return OllamaVersion(version=VERSION)


@ApiHandler
async def tags(proxy: ProxyContext, request: Request) -> ListedModels:
    """Return the models that the client's key may use."""
    records = model_listing.models(proxy, request.access)
    return ListedModels(models=[_listed(proxy, record.id) for record in records])


@ApiHandler
async def loaded(proxy: ProxyContext, request: Request) -> LoadedModels:
    """Return the models whose server runs."""
    view = proxy.view(request.access)
    names = (name for name in sorted(proxy.catalog.models) if view.shows(name))
    found = [name for name in names if public_state(proxy.supervisor[name]) in _LOADED]
    return LoadedModels(models=[_loaded(proxy, name) for name in found])


@ApiHandler
async def show(proxy: ProxyContext, request: Request) -> ModelFacts:
    """Describe the model that the body names."""
    name = bodies.name_in(await bodies.decoded(proxy, request, NameBody))
    known = known_model(proxy, request, name)
    facts, capabilities = _facts(proxy, known), NO_CAPABILITIES
    target = proxy.catalog.targets.get(known)
    if isinstance(target, LocalModel):
        capabilities = target.definition.capabilities
    family = facts.architecture or "unknown"
    info: dict[str, object] = {"general.architecture": family, "general.basename": known}
    if context := capabilities.context or facts.context:
        info[f"{family}.context_length"] = context
    return ModelFacts(
        modelfile=f"FROM {known}\n", parameters="", template="", details=_details(facts),
        model_info=info, capabilities=_capabilities(capabilities, facts), modified_at=_STARTED,
    )  # fmt: skip


def known_model(proxy: ProxyContext, request: Request, name: str) -> str:
    """Return the name that the proxy knows for the model called *name*.

    Raises:
        ApiError: There is no such model, or the key of *request* may not use it.
    """
    known = known_name(proxy.catalog, proxy.profiles, name)
    try:
        found = model_listing.model(proxy, known, request.access)
    except PermissionError as error:
        raise model_forbidden(name) from error
    if found is None:
        raise unknown_model(request, name, proxy.catalog.closest(name))
    return known


def _listed(proxy: ProxyContext, name: str) -> ListedModel:
    facts, tag = _facts(proxy, name), tagged(name)
    return ListedModel(
        name=tag, model=tag, modified_at=_STARTED, size=facts.size, digest=_digest(name),
        details=_details(facts),
    )  # fmt: skip


def _loaded(proxy: ProxyContext, name: str) -> LoadedModel:
    facts, tag, definition = _facts(proxy, name), tagged(name), proxy.catalog.models[name]
    return LoadedModel(
        name=tag, model=tag, size=facts.size, digest=_digest(name), details=_details(facts),
        expires_at=_expiry(proxy, name), size_vram=_gpu_bytes(proxy, name),
        context_length=definition.capabilities.context or facts.context,
    )  # fmt: skip


def _expiry(proxy: ProxyContext, name: str) -> str:
    life = proxy.supervisor[name]
    deadline = life.deadline("idle_limit")
    if deadline is not None:
        return rfc3339(time() + deadline - proxy.now())
    limit_s = life.spec.timings.idle_limit
    if limit_s is None or math.isinf(limit_s) or not (life.in_flight or life.waiting):
        return _NEVER
    return rfc3339(time() + limit_s)


def _gpu_bytes(proxy: ProxyContext, name: str) -> int:
    """Return what a model holds of all memory pools but the main memory, in bytes."""
    entry = proxy.supervisor.scheduler.services.get(name)
    if entry is None:
        return 0
    pools = dict.fromkeys([*entry.claim, *entry.seen])
    held = ((pool, entry.seen.get(pool) or entry.claim.get(pool, 0)) for pool in pools)
    return sum(size for pool, size in held if pool.rpartition("/")[2] != "RAM")


def _facts(proxy: ProxyContext, name: str) -> FileFacts:
    """Return what is known of the files of the local model called *name*."""
    known, facts_of = proxy.catalog.real_name(name), proxy.details.get("ollama")
    facts = None if known is None or facts_of is None else facts_of(known)
    return _UNKNOWN if facts is None else msgspec.convert(facts, FileFacts)


def _details(facts: FileFacts) -> ModelDetails:
    family = facts.architecture
    return ModelDetails(
        format="gguf" if family else "", family=family, families=[family] if family else [],
        parameter_size=facts.parameter_size, quantization_level=facts.quantization,
    )  # fmt: skip


def _capabilities(given: Capabilities, facts: FileFacts) -> list[str]:
    """Return what a model can do; one of which nothing is configured calls functions."""
    if facts.is_embedding:
        return ["embedding"]
    found = ["completion"]
    if given.has_tools or given == NO_CAPABILITIES:
        found.append("tools")
    if "image" in given.inputs or facts.has_vision:
        found.append("vision")
    return found


def _digest(name: str) -> str:
    return sha256(name.encode()).hexdigest()
