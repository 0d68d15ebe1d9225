"""Definitions of models, peers, selectors and profiles, as the configuration gives them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from ....dataclass import dataclass, field

Modality = Literal["text", "audio", "image"]


@dataclass(frozen=True, slots=True, kw_only=True)
class BodyFilters:
    """Changes to the JSON body of a request; see ``json_edit.Edits`` for the paths.

    Attributes:
        strip: Paths to remove.
        set_params: Path -> value to set.
        set_params_by_id: Requested name -> the same as ``set_params``, applied after it.
    """

    strip: tuple[str, ...] = ()
    set_params: Mapping[str, Any] = field(default_factory=dict)
    set_params_by_id: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


NO_FILTERS = BodyFilters()


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamTimeouts:
    """Timeouts of requests to an upstream in seconds, > 0; None means no limit.

    Attributes:
        connect_s: Until a connection is established.
        header_s: Until the headers of a response arrive.
        first_byte_s: The same, but a model that exceeds it is unhealthy.
        stall_s: Between two chunks of a response; a model that exceeds it is unhealthy.
    """

    connect_s: float | None = 30.0
    header_s: float | None = None
    first_byte_s: float | None = None
    stall_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """Capabilities of a model, as the configuration says.

    Attributes:
        inputs: Modalities that it accepts.
        outputs: Modalities that it generates.
        has_tools: It calls functions.
        is_reranker: It ranks documents.
        context: Context length in tokens; 0 means unknown.
    """

    inputs: tuple[Modality, ...] = ()
    outputs: tuple[Modality, ...] = ()
    has_tools: bool = False
    is_reranker: bool = False
    context: int = 0


NO_CAPABILITIES = Capabilities()


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelDefinition:
    """A local model: what clients see of it, and how its requests are forwarded.

    Attributes:
        id: Name of the model in the configuration.
        aliases: Further names.
        name: Display name.
        description: Description for people.
        command: Command line, as `/running` shows it.
        proxy: Base URL of its server.
        ttl_s: Idle timeout in seconds; 0 means none.
        use_model_name: Replacement for ``model`` in requests; empty means none.
        filters: Changes to the bodies of its requests.
        is_unlisted: It is missing in lists of models.
        priority: Priority of its requests in the queue; higher comes first.
        limits: Timeouts of requests to its server.
        sends_loading_state: Clients that ask for a stream get its loading state.
        ignores_websockets: A websocket neither starts it nor keeps it loaded.
        passes_keys: Its server gets the API keys of clients.
        kv_mode: ``kv`` of the configuration: ``off``, ``keep`` or ``engine``.
        has_library: The proxy chooses the slots of its requests; see `Conversations`.
        capabilities: What it can do.
        metadata: Additional fields of its entry in `/v1/models`.
    """

    id: str
    aliases: tuple[str, ...] = ()
    name: str = ""
    description: str = ""
    command: str = ""
    proxy: str = ""
    ttl_s: float = 0
    use_model_name: str = ""
    filters: BodyFilters = NO_FILTERS
    is_unlisted: bool = False
    priority: int = 0
    limits: UpstreamTimeouts = UpstreamTimeouts()
    sends_loading_state: bool = False
    ignores_websockets: bool = False
    passes_keys: bool = False
    kv_mode: Literal["off", "keep", "engine"] = "off"
    has_library: bool = False
    capabilities: Capabilities = NO_CAPABILITIES
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerDefinition:
    """Another server whose models can be used.

    Attributes:
        id: Name of the peer; its models have the names ``<id>/<model>``.
        url: Base URL.
        api_key: Key that is sent to the peer; None forwards the client's key where no ``apiKeys``
            are configured.
        models: Names of the models at the peer.
        filters: Changes to the bodies of its requests.
        limits: Timeouts of requests to the peer.
    """

    id: str
    url: str
    api_key: str | None = field(default=None, repr=False)
    models: tuple[str, ...] = ()
    filters: BodyFilters = NO_FILTERS
    limits: UpstreamTimeouts = UpstreamTimeouts(header_s=60.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectorDefinition:
    """A name that stands for one of several models, selected for each request.

    Attributes:
        id: The name.
        strategy: ``pin`` selects the first target, ``warm`` the first that is loaded, ``spillover``
            the next one when a target is busy.
        targets: Names of models, in order; at least one.
        spillover: Requests in flight that a target gets before the next is used; >= 1.
        name: Display name.
        description: Description for people.
        is_unlisted: It is missing in lists of models.
        metadata: Additional fields of its entry in `/v1/models`.
    """

    id: str
    strategy: Literal["pin", "warm", "spillover"]
    targets: tuple[str, ...]
    spillover: int = 1
    name: str = ""
    description: str = ""
    is_unlisted: bool = False
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileDefinition:
    """A set of names with other meanings while the profile is active.

    Attributes:
        id: Name of the profile.
        description: Description for people.
        pins: Requested name -> name of the model; None disables the requested name.
    """

    id: str
    description: str = ""
    pins: Mapping[str, str | None] = field(default_factory=dict)
