"""Lists of models for clients: those that can be used, and those whose server runs."""

from __future__ import annotations

import shlex
from time import time
from typing import Any, TypeAlias

import msgspec
from msgspec import structs

from ..access.visible_models import View
from ..context import ProxyContext
from ..models.catalog import LocalModel
from ..models.definitions import Capabilities, ModelDefinition, SelectorDefinition
from ..models.public_state import public_state
from ..options import EVERYTHING, Access
from .schema.containers import ContainerFacts
from .schema.kv import KvFacts
from .schema.models import (
    Architecture,
    HeldMemory,
    LlamaSwapMeta,
    LoadStatus,
    Model,
    RunningModel,
)

Meta: TypeAlias = dict[str, Any]

#: ``created`` of each model: clients that compare lists must not see a change with each request.
_CREATED = int(time())
_UNLOADED = frozenset({"stopped", "shutdown"})
ROUTER_STATES = {  # llama-swap's words -> those of llama-server's router
    "stopped": "unloaded", "shutdown": "unloaded", "starting": "loading", "ready": "loaded",
    "sleeping": "sleeping", "stopping": "loaded",
}  # fmt: skip
#: (modality of the input, of the output) -> name of that capability.
_CAPABILITIES = (
    ("audio", "text", "audio_transcriptions"), ("text", "audio", "audio_speech"),
    ("text", "image", "image_generation"), ("image", "image", "image_to_image"),
)  # fmt: skip
#: Metadata that is left out where the capabilities of a model say the same.
_REPLACED = ("architecture", "capabilities", "supported_parameters", "context_length")


def models(proxy: ProxyContext, access: Access = EVERYTHING) -> list[Model]:
    """Return the models that *access* may use, sorted by id."""
    records = [*_models(proxy), *_peers(proxy), *_selectors(proxy)]
    known = {record.id for record in records} | proxy.catalog.targets.keys()
    records += _pins(proxy, known)
    if access.models is not None:
        view = proxy.view(access)
        records = [
            visible for record in records if (visible := _visible(proxy, record, access, view))
        ]
    return sorted(records, key=lambda record: record.id)


def model(proxy: ProxyContext, name: str, access: Access = EVERYTHING) -> Model | None:
    """Return the record of the model called *name*, which need not be listed.

    Returns:
        The record with *name* as its id; None if there is no such model.

    Raises:
        PermissionError: *access* may not use it.
    """
    record = _named(proxy, name)
    if record is None or access.models is None:
        return record
    visible = _visible(proxy, record, access, proxy.view(access))
    if visible is None:
        raise PermissionError(name)
    return visible


def _named(proxy: ProxyContext, name: str) -> Model | None:
    catalog, pins = proxy.catalog, proxy.profiles.pins
    if name in pins and not pins[name]:
        return None
    target = catalog.targets.get(name)
    if isinstance(target, LocalModel):
        is_loaded = public_state(proxy.supervisor[target.id]) not in _UNLOADED
        return _local(target.definition, name, is_loaded=is_loaded)
    if target is not None:
        return _peer(target.definition.id, target.sent_model, name)
    if name in catalog.selectors:
        return _selector(proxy, catalog.selectors[name])
    return next((pin for pin in _pins(proxy, set()) if pin.id == name), None)


def _visible(proxy: ProxyContext, record: Model, access: Access, view: View) -> Model | None:
    """Return *record* as a key for some models sees it, or None if it is about other models."""
    meta = record.meta.llamaswap
    target = proxy.catalog.targets.get(record.id)
    if target is not None:
        return record if access.allows_model(record.id, target.id) else None
    targets = view.visible(meta["targets"] if meta["type"] == "selector" else [meta["target"]])
    if not targets and not access.allows_model(record.id):
        return None
    if meta["type"] == "selector":
        meta = {**meta, "targets": targets}
    else:
        meta = {**meta, "target": view.text(meta["target"])}
    return structs.replace(record, meta=LlamaSwapMeta(llamaswap=meta))


def _record(name: str, kind: str, meta: Meta, *, is_loaded: bool) -> Model:
    return Model(
        id=name, created=_CREATED, owned_by="swapchart",
        meta=LlamaSwapMeta(llamaswap={**meta, "type": kind}),
        status=LoadStatus(value="loaded" if is_loaded else "unloaded"),
    )  # fmt: skip


def _models(proxy: ProxyContext) -> list[Model]:
    records = []
    for definition in proxy.catalog.models.values():
        if definition.is_unlisted:
            continue
        is_loaded = public_state(proxy.supervisor[definition.id]) not in _UNLOADED
        aliases = definition.aliases if proxy.options.include_aliases else ()
        names = (definition.id, *aliases)
        records += [_local(definition, name, is_loaded=is_loaded) for name in names]
    return records


def _local(definition: ModelDefinition, name: str, *, is_loaded: bool) -> Model:
    """Return the record of a local model by its id or an alias."""
    if name != definition.id:
        meta: Meta = {"modelID": definition.id}
        return _described(definition, "alias", name, meta, is_loaded=is_loaded)
    meta = {"aliases": list(definition.aliases)} if definition.aliases else {}
    return _described(definition, "model", name, meta, is_loaded=is_loaded)


def _described(
    definition: ModelDefinition, kind: str, name: str, meta: Meta, *, is_loaded: bool
) -> Model:
    capabilities = definition.capabilities
    has_capabilities = capabilities != Capabilities()
    own = {
        key: value
        for key, value in definition.metadata.items()
        if not (has_capabilities and key in _REPLACED)
    }
    record = _record(name, kind, {**own, **meta}, is_loaded=is_loaded)
    _add_names(record, definition)
    if has_capabilities:
        _add_capabilities(record, capabilities)
    return record


def _add_names(record: Model, definition: ModelDefinition | SelectorDefinition) -> None:
    if definition.name.strip():
        record.name = definition.name.strip()
    if definition.description.strip():
        record.description = definition.description.strip()


def _add_capabilities(record: Model, capabilities: Capabilities) -> None:
    inputs, outputs = capabilities.inputs, capabilities.outputs
    if inputs or outputs:
        architecture = record.architecture = Architecture()
        if inputs:
            architecture.input_modalities = list(inputs)
        if outputs:
            architecture.output_modalities = list(outputs)
        if inputs and outputs:
            architecture.modality = f"{'+'.join(inputs)}->{'+'.join(outputs)}"
    if names := capabilities_of(capabilities):
        record.capabilities = names
    if capabilities.has_tools:
        record.supported_parameters = ["tools", "tool_choice"]
    if capabilities.context:
        record.context_length = record.meta.n_ctx = capabilities.context


def capabilities_of(capabilities: Capabilities) -> dict[str, bool]:
    """Return the capabilities of a model under llama-swap's names; only those that it has."""
    found = {"vision": "image" in capabilities.inputs}
    for given, made, name in _CAPABILITIES:
        found[name] = given in capabilities.inputs and made in capabilities.outputs
    found["function_calling"] = capabilities.has_tools
    found["reranker"] = capabilities.is_reranker
    return {name: True for name, has_it in found.items() if has_it}


def _peers(proxy: ProxyContext) -> list[Model]:
    return [
        _peer(peer.id, model, f"{peer.id}/{model}")
        for peer in proxy.catalog.peers.values()
        for model in peer.models
    ]


def _peer(peer: str, model: str, name: str) -> Model:
    record = _record(name, "peer", {"peerID": peer}, is_loaded=False)
    record.name = f"{peer}: {model}"
    return record


def _selectors(proxy: ProxyContext) -> list[Model]:
    listed = (item for item in proxy.catalog.selectors.values() if not item.is_unlisted)
    return [_selector(proxy, definition) for definition in listed]


def _selector(proxy: ProxyContext, definition: SelectorDefinition) -> Model:
    targets = proxy.resolver.targets_of(definition)
    candidates = targets[:1] if definition.strategy == "pin" else targets
    is_loaded = any(proxy.resolver.readiness(item) in ("ready", "starting") for item in candidates)
    meta: Meta = {"strategy": definition.strategy, "targets": list(definition.targets)}
    if definition.strategy == "spillover":
        meta["spillover"] = definition.spillover
    record = _record(
        definition.id, "selector", {**definition.metadata, **meta}, is_loaded=is_loaded
    )
    _add_names(record, definition)
    return record


def _pins(proxy: ProxyContext, known: set[str]) -> list[Model]:
    records = []
    for name, target in proxy.profiles.pins.items():
        if name in known or not target:
            continue
        found = proxy.catalog.local(target)
        is_loaded = found is not None and (
            public_state(proxy.supervisor[found.definition.id]) not in _UNLOADED
        )
        meta = {"profile": proxy.profiles.active, "target": target}
        records.append(_record(name, "profile", meta, is_loaded=is_loaded))
    return records


def router_models(proxy: ProxyContext, access: Access = EVERYTHING) -> list[Model]:
    """Return the same records with the status that llama-server's router reports.

    The command line of a server is for administrators: its arguments may hold secrets.
    """
    records = models(proxy, access)
    for record in records:
        found = proxy.catalog.targets.get(record.id)
        if not isinstance(found, LocalModel):
            continue
        life = proxy.supervisor[found.definition.id]
        state = public_state(life)
        if state == "stopping" and life.spec.name not in proxy.loaded:
            state = "starting"  # what is left of a start that failed
        status = LoadStatus(value=ROUTER_STATES[state])
        if "admin" in access.scopes:
            status.args = _arguments(found.definition)
        if life.failures:
            status.failed = True
            status.exit_code = None if life.last_exit is None else life.last_exit.code
        record.status = status
    return records


def _arguments(definition: ModelDefinition) -> list[str]:
    try:
        return shlex.split(definition.command)
    except ValueError:
        return definition.command.split()


def running(proxy: ProxyContext) -> list[RunningModel]:
    """Return the models whose server runs, sorted by id."""
    rows = []
    for definition in sorted(proxy.catalog.models.values(), key=lambda item: item.id):
        life = proxy.supervisor[definition.id]
        state = public_state(life)
        if state in _UNLOADED:
            continue
        row = RunningModel(
            model=definition.id, state=state, cmd=definition.command, proxy=life.endpoint,
            ttl=definition.ttl_s, name=definition.name, description=definition.description,
            configuration=list(life.configuration), cause=life.cause,
            pid=life.process.pid or None if life.process else None, incarnation=life.incarnation,
            in_flight=life.in_flight, waiting=life.waiting, node=life.node,
        )  # fmt: skip
        kv_facts = proxy.details.get("kv")
        facts = None if kv_facts is None else kv_facts(definition.id)
        if facts is not None:
            row.kv = msgspec.convert(facts, KvFacts)
        if (container := container_facts(proxy, definition.id)) is not None:
            row.container = container
        if held := _held_memory(proxy, definition.id):
            row.memory = held
        rows.append(row)
    return rows


def container_facts(proxy: ProxyContext, name: str) -> ContainerFacts | None:
    """Return the container of a model; None if it runs in none."""
    found = proxy.details.get("container")
    facts = None if found is None else found(name)
    return None if facts is None else msgspec.convert(facts, ContainerFacts)


def _held_memory(proxy: ProxyContext, name: str) -> dict[str, HeldMemory]:
    entry = proxy.supervisor.scheduler.services.get(name)
    if entry is None or entry.need is None:
        return {}
    source = entry.need.source
    return {
        pool: HeldMemory(claim=entry.claim.get(pool, 0), seen=entry.seen.get(pool), source=source)
        for pool in dict.fromkeys([*entry.claim, *entry.seen])
    }
