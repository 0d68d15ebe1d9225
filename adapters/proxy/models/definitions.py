"""Models, peers, selectors and profiles as clients see them. Values, made by whoever composes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Modality = Literal["text", "audio", "image"]


@dataclass(frozen=True, slots=True, kw_only=True)
class BodyFilters:
    """Changes to the JSON body of a request; see ``json_edit.Edits`` for the paths.

    Attributes:
        strip: Paths that are removed.
        set_params: Path -> value.
        set_params_by_id: Name as requested -> as ``set_params``, applied after it.
    """

    strip: tuple[str, ...] = ()
    set_params: Mapping[str, Any] = field(default_factory=dict)
    set_params_by_id: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


NO_FILTERS = BodyFilters()


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamTimeouts:
    """How long things with an upstream may take; seconds, None is without limit.

    Attributes:
        connect_s: For a connection to come about.
        header_s: For the head of an answer.
        stall_s: Between two pieces of an answer; a model beyond it counts as unhealthy.
    """

    connect_s: float | None = 30.0
    header_s: float | None = None
    stall_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What a model can do, as its configuration says.

    Attributes:
        inputs: Modalities it takes.
        outputs: Modalities it gives.
        has_tools: It calls functions.
        is_reranker: It ranks documents.
        context: Its context length in tokens; 0 is unknown.
    """

    inputs: tuple[Modality, ...] = ()
    outputs: tuple[Modality, ...] = ()
    has_tools: bool = False
    is_reranker: bool = False
    context: int = 0


NO_ABILITIES = Capabilities()


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelDefinition:
    """One model, for listings and for the way of its requests.

    Attributes:
        id: Its real name.
        aliases: Further names.
        name: Display name.
        description: For people.
        command: The command line, as `/running` shows it.
        proxy: Base URL of its server.
        ttl_s: Idle limit; 0 is none.
        use_model_name: Replaces ``model`` in requests; empty: nothing is replaced.
        filters: Change its requests.
        is_unlisted: Not in listings.
        priority: In the queue; higher goes first.
        limits: With its server.
        sends_loading_state: Tell clients that asked for a stream that it is loading.
        ignores_websockets: They never start it, and do not keep it up.
        abilities: What it can do.
        metadata: For `/v1/models`.
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
    abilities: Capabilities = NO_ABILITIES
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerDefinition:
    """Another server that offers models.

    Attributes:
        id: Its name; models of it are called ``<id>/<model>``.
        url: Base URL.
        api_key: Sent to it; None passes the client's own on, where we do not ask for keys.
        models: What they are called there.
        filters: Change its requests.
        limits: With it.
    """

    id: str
    url: str
    api_key: str | None = field(default=None, repr=False)
    models: tuple[str, ...] = ()
    filters: BodyFilters = NO_FILTERS
    limits: UpstreamTimeouts = UpstreamTimeouts(header_s=60.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectorDefinition:
    """A name for one of several models, chosen when a request comes.

    Attributes:
        id: The name.
        strategy: ``pin``: the first. ``warm``: the first that runs. ``spillover``: the next when
            one is busy.
        targets: Names of models, in order; at least one.
        spillover: Requests a target takes before the next is used; >= 1.
        name: Display name.
        description: For people.
        is_unlisted: Not in listings.
        metadata: For `/v1/models`.
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
    """Names that mean something else while the profile is active.

    Attributes:
        id: Its name.
        description: For people.
        pins: Public name -> what it means; None: it is unknown.
    """

    id: str
    description: str = ""
    pins: Mapping[str, str | None] = field(default_factory=dict)
