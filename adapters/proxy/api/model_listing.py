"""Lists of the configured models (``/v1/models``) and of the running ones (``/running``)."""

from __future__ import annotations

import shlex
from time import time
from typing import Any, TypeAlias

from ..access.visible_models import View
from ..context import ProxyContext
from ..models.catalog import LocalModel
from ..models.definitions import Capabilities, ModelDefinition, SelectorDefinition
from ..models.public_state import shown_state
from ..options import EVERYTHING, Access

Record: TypeAlias = dict[str, Any]

_GONE = frozenset({"stopped", "shutdown"})
_ROUTER = {  # llama-swap's words -> those of llama-server's router
    "stopped": "unloaded", "shutdown": "unloaded", "starting": "loading", "ready": "loaded",
    "sleeping": "sleeping", "stopping": "loaded",
}  # fmt: skip
#: (taken, given) -> what that is called among capabilities.
_CAPABILITIES = (
    ("audio", "text", "audio_transcriptions"), ("text", "audio", "audio_speech"),
    ("text", "image", "image_generation"), ("image", "image", "image_to_image"),
)  # fmt: skip
_REPLACED = ("architecture", "capabilities", "supported_parameters", "context_length")


def models(proxy: ProxyContext, access: Access = EVERYTHING) -> list[Record]:
    """Return the records of ``/v1/models`` that *access* may use, sorted by id."""
    records = [*_models(proxy), *_peers(proxy), *_selectors(proxy)]
    known = {record["id"] for record in records} | proxy.catalog.targets.keys()
    records += _pins(proxy, known)
    if access.models is not None:
        view = proxy.view(access)
        records = [shown for record in records if (shown := _for_some(proxy, record, access, view))]
    return sorted(records, key=lambda record: str(record["id"]))


def _for_some(proxy: ProxyContext, record: Record, access: Access, view: View) -> Record | None:
    """Return *record* as a key for some models sees it; None: it is about others."""
    name, meta = str(record["id"]), record["meta"]["llamaswap"]
    target = proxy.catalog.targets.get(name)
    if target is not None:
        return record if access.allows_model(name, target.id) else None
    targets = view.those(meta["targets"] if meta["type"] == "selector" else [meta["target"]])
    if not targets and not access.allows_model(name):
        return None
    if meta["type"] == "selector":
        meta = {**meta, "targets": targets}
    else:
        meta = {**meta, "target": view.text(meta["target"])}
    return {**record, "meta": {"llamaswap": meta}}


def _record(name: str, kind: str, *, is_loaded: bool, **meta: Any) -> Record:
    return {
        "id": name, "object": "model", "created": int(time()), "owned_by": "swapchart",
        "meta": {"llamaswap": {**meta, "type": kind}},
        "status": {"value": "loaded" if is_loaded else "unloaded"},
    }  # fmt: skip


def _models(proxy: ProxyContext) -> list[Record]:
    records = []
    for card in proxy.catalog.cards.values():
        if card.is_unlisted:
            continue
        is_loaded = shown_state(proxy.supervisor[card.id]) not in _GONE
        aliases = {"aliases": list(card.aliases)} if card.aliases else {}
        records.append(_described(card, "model", card.id, is_loaded=is_loaded, **aliases))
        if proxy.options.include_aliases:
            records += [
                _described(card, "alias", alias, is_loaded=is_loaded, modelID=card.id)
                for alias in card.aliases
            ]
    return records


def _described(
    card: ModelDefinition, kind: str, name: str, *, is_loaded: bool, **meta: Any
) -> Record:
    has = card.abilities
    is_told = has != Capabilities()
    own = {k: v for k, v in card.metadata.items() if not (is_told and k in _REPLACED)}
    record = _record(name, kind, is_loaded=is_loaded, **{**own, **meta})
    _add_names(record, card)
    if is_told:
        _add_abilities(record, has)
    return record


def _add_names(record: Record, card: ModelDefinition | SelectorDefinition) -> None:
    if card.name.strip():
        record["name"] = card.name.strip()
    if card.description.strip():
        record["description"] = card.description.strip()


def _add_abilities(record: Record, has: Capabilities) -> None:
    architecture: Record = {}
    if has.inputs:
        architecture["input_modalities"] = list(has.inputs)
    if has.outputs:
        architecture["output_modalities"] = list(has.outputs)
    if has.inputs and has.outputs:
        architecture["modality"] = f"{'+'.join(has.inputs)}->{'+'.join(has.outputs)}"
    if architecture:
        record["architecture"] = architecture
    capabilities = capabilities_of(has)
    if capabilities:
        record["capabilities"] = capabilities
    if has.has_tools:
        record["supported_parameters"] = ["tools", "tool_choice"]
    if has.context:
        record["context_length"] = has.context
        record["meta"]["n_ctx"] = has.context


def capabilities_of(has: Capabilities) -> dict[str, bool]:
    """Return what a model can do, in llama-swap's words; only what it can."""
    found = {"vision": "image" in has.inputs}
    for taken, given, name in _CAPABILITIES:
        found[name] = taken in has.inputs and given in has.outputs
    found["function_calling"] = has.has_tools
    found["reranker"] = has.is_reranker
    return {name: True for name, is_so in found.items() if is_so}


def _peers(proxy: ProxyContext) -> list[Record]:
    records = []
    for peer in proxy.catalog.peers.values():
        for model in peer.models:
            record = _record(f"{peer.id}/{model}", "peer", is_loaded=False, peerID=peer.id)
            records.append({**record, "name": f"{peer.id}: {model}"})
    return records


def _selectors(proxy: ProxyContext) -> list[Record]:
    records = []
    for card in proxy.catalog.selectors.values():
        if card.is_unlisted:
            continue
        targets = proxy.resolver.targets_of(card)
        looked_at = targets[:1] if card.strategy == "pin" else targets
        is_loaded = any(proxy.resolver.warmth(item) in ("ready", "starting") for item in looked_at)
        meta: Record = {"strategy": card.strategy, "targets": list(card.targets)}
        if card.strategy == "spillover":
            meta["spillover"] = card.spillover
        record = _record(card.id, "selector", is_loaded=is_loaded, **{**card.metadata, **meta})
        _add_names(record, card)
        records.append(record)
    return records


def _pins(proxy: ProxyContext, known: set[str]) -> list[Record]:
    records = []
    for name, target in proxy.profiles.pins.items():
        if name in known or not target:
            continue
        found = proxy.catalog.local(target)
        is_loaded = found is not None and (
            shown_state(proxy.supervisor[found.card.id]) not in _GONE
        )
        meta = {"profile": proxy.profiles.active, "target": target}
        records.append(_record(name, "profile", is_loaded=is_loaded, **meta))
    return records


def router_models(proxy: ProxyContext, access: Access = EVERYTHING) -> list[Record]:
    """Return the same records with the status that llama-server's router tells.

    How a model is started is for administrators: its arguments may hold secrets.
    """
    records = models(proxy, access)
    for record in records:
        found = proxy.catalog.targets.get(record["id"])
        if not isinstance(found, LocalModel):
            continue
        life = proxy.supervisor[found.card.id]
        status: Record = {"value": _ROUTER[shown_state(life)]}
        if "admin" in access.scopes:
            status["args"] = _arguments(found.card)
        if life.failures:
            exit_ = life.last_exit
            status |= {"failed": True, "exit_code": None if exit_ is None else exit_.code}
        record["status"] = status
    return records


def _arguments(card: ModelDefinition) -> list[str]:
    try:
        return shlex.split(card.command)
    except ValueError:
        return card.command.split()


def running(proxy: ProxyContext) -> list[Record]:
    """Return the rows of ``/running``, sorted, with our own facts beside llama-swap's."""
    rows = []
    for card in sorted(proxy.catalog.cards.values(), key=lambda card: card.id):
        life = proxy.supervisor[card.id]
        state = shown_state(life)
        if state in _GONE:
            continue
        row: Record = {
            "model": card.id, "state": state, "cmd": card.command, "proxy": card.proxy,
            "ttl": card.ttl_s, "name": card.name, "description": card.description,
            "configuration": list(life.configuration), "cause": life.cause,
            "pid": life.process.pid if life.process else None,
            "incarnation": life.incarnation, "in_flight": life.in_flight,
            "waiting": life.waiting,
        }  # fmt: skip
        for name, tell in proxy.details.items():
            detail = tell(card.id)
            if detail is not None:
                row[name] = dict(detail)
        rows.append(row)
    return rows
