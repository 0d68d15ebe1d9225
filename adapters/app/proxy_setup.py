"""Model catalog and options of the proxy, from the configuration."""

from __future__ import annotations

import secrets
from dataclasses import replace
from pathlib import Path

from ... import __version__
from ..config import Config, ModelConfig
from ..config.schema.model import Liveness, Timeouts
from ..config.values import Filters, Peer, Selector
from ..proxy.models.catalog import ModelCatalog
from ..proxy.models.definitions import (
    BodyFilters,
    Capabilities,
    ModelDefinition,
    PeerDefinition,
    ProfileDefinition,
    SelectorDefinition,
    UpstreamTimeouts,
)
from ..proxy.options import ApiKey, ProxyOptions

_CONNECT_TO_NODE_S = 10  # unless it is configured; Linux tries again after 1, 3 and 7 s
_UI = Path(__file__).parent.parent / "proxy" / "ui"


def model_catalog(config: Config) -> ModelCatalog:
    """Return the catalog of all models, peers, selectors and profiles."""
    priorities = config.routing.priorities
    return ModelCatalog(
        [_definition(model, priorities.get(model.id, 0)) for model in config.models.values()],
        peers=[_peer(peer) for peer in config.peers.values()],
        selectors=[_selector(selector) for selector in config.selectors.values()],
        profiles=[
            ProfileDefinition(id=profile.id, description=profile.description, pins=profile.pins)
            for profile in config.profiles.values()
        ],
        ignored=config.ignore_paths,
    )


def _definition(model: ModelConfig, priority: int) -> ModelDefinition:
    given = model.capabilities
    return ModelDefinition(
        id=model.id,
        aliases=model.aliases,
        name=model.name,
        description=model.description,
        command=model.cmd_shown or model.cmd,
        proxy=model.proxy,
        ttl_s=model.ttl,
        use_model_name=model.use_model_name,
        filters=_filters(model.filters),
        is_unlisted=model.unlisted,
        priority=priority,
        limits=_limits(model.timeouts, model.liveness, is_elsewhere=model.nodes is not None),
        sends_loading_state=model.send_loading_state,
        ignores_websockets=model.ignore_websockets,
        passes_keys=model.pass_keys,
        kv_mode=model.kv.mode,
        has_library=model.kv.mode == "keep" and model.kv.library is not None,
        capabilities=Capabilities(
            inputs=tuple(given.inputs),
            outputs=tuple(given.outputs),
            has_tools=given.tools,
            is_reranker=given.reranker,
            context=given.context,
        ),
        metadata=model.metadata,
    )


def _filters(given: Filters) -> BodyFilters:
    return BodyFilters(
        strip=given.strip, set_params=given.set_params, set_params_by_id=given.set_params_by_id
    )


def _limits(
    given: Timeouts, liveness: Liveness | None = None, *, is_elsewhere: bool = False
) -> UpstreamTimeouts:
    is_given = "connect" in given.model_fields_set
    connect_s = _CONNECT_TO_NODE_S if is_elsewhere and not is_given else given.connect
    return UpstreamTimeouts(
        connect_s=connect_s if connect_s > 0 else None,
        header_s=given.response_header or None,
        first_byte_s=None if liveness is None else liveness.first_byte or None,
        stall_s=None if liveness is None else liveness.stalled or None,
    )


def _peer(peer: Peer) -> PeerDefinition:
    return PeerDefinition(
        id=peer.id,
        url=peer.proxy,
        api_key=None if peer.api_key is None else peer.api_key.get_secret_value(),
        models=peer.models,
        filters=_filters(peer.filters),
        limits=_limits(peer.timeouts),
    )


def _selector(selector: Selector) -> SelectorDefinition:
    return SelectorDefinition(
        id=selector.id,
        strategy=selector.strategy,
        targets=selector.targets,
        spillover=selector.spillover,
        name=selector.name,
        description=selector.description,
        is_unlisted=selector.unlisted,
        metadata=selector.metadata,
    )


def _api_keys(config: Config) -> tuple[list[ApiKey], str]:
    """Return all API keys, and the one of clients of Ollama that send none, or "".

    That one is made up, with the rights of the configured key, of which only a hash may be known.
    """
    keys, guest = [], ""
    for number, entry in enumerate(config.api_key_entries, 1):
        key = ApiKey(
            key=entry.key.get_secret_value(),
            scopes=entry.scopes,
            models=None if entry.models is None else tuple(sorted(entry.models)),
            holder=f"key {number}",
        )
        keys.append(key)
        if config.ollama is not None and config.ollama.key and entry.name == config.ollama.key:
            guest = secrets.token_urlsafe(32)
            keys.append(replace(key, key=guest))
    return keys, guest


def proxy_options(config: Config) -> ProxyOptions:
    """Return the options of the proxy."""
    keys, guest = _api_keys(config)
    return ProxyOptions(
        keys=tuple(keys),
        ollama_key=guest,
        allowed_origins=config.allowed_origins,
        allowed_hosts=config.allowed_hosts,
        trusted_proxies=config.trusted_proxies,
        start_on_get=config.start_on_get,
        include_aliases=config.include_aliases_in_list,
        session_headers=config.session_headers,
        listeners=config.listeners.limit,
        listeners_per_key=config.listeners.per_key,
        capture_bytes=config.capture_bytes,
        performance_every_s=config.performance_every,
        ui_root=_UI,
        instance_id=secrets.token_hex(8),
        version=__version__,
    )
