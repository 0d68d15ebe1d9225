"""Keys of the document, as its author writes them, with their types and ranges.

docs/llama-swap.md compares the keys with llama-swap's. `config_schema` returns the JSON Schema
of the file, for editors.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BeforeValidator, Field, SecretStr, model_validator

from .access_fields import HostName, Origin, VariableName
from .fields import (
    ApiKeyEntrySection,
    Count,
    Duration,
    FreeForm,
    Network,
    Seconds,
    SecondsOrOff,
    Section,
    refuse,
)
from .hooks import HookPoints
from .memory import MemoryEntry, MemorySection
from .model import FiltersSection, ModelSection, Overridable, Timeouts
from .yielding import YieldSection

_IGNORED = r".*\.(js|json|css|png|gif|jpg|jpeg|ico|txt)$"
_SESSION_HEADERS = ("X-Session-ID", "X-Litellm-Session-Id")


class StoreSection(Section):
    """Storage of the activity list."""

    path: Annotated[str, Field(min_length=1)]


class ActivitySection(Section):
    """The Activity page."""

    session_id: tuple[str, ...] = Field(default=_SESSION_HEADERS, alias="session_id")


class UiSection(Section):
    """The web pages."""

    activity: ActivitySection = ActivitySection()


def _as_interval(seconds: float) -> float:
    if seconds == 0:
        return 5.0
    if seconds < 5:
        raise refuse("every must be at least 5s")
    return seconds


class PerformanceSection(Section):
    """Sampling of the machine's load."""

    disabled: bool = False
    every: Duration = 5.0

    @model_validator(mode="after")
    def _often_enough(self) -> PerformanceSection:
        _as_interval(self.every)
        return self

    @property
    def every_s(self) -> float:
        """Time between two samples; seconds >= 5."""
        return _as_interval(self.every)


class UpstreamSection(Section):
    """The ``/upstream`` passthrough."""

    ignore_paths: tuple[str, ...] = (_IGNORED,)


class StartupSection(Section):
    """Actions at the start of the proxy."""

    preload: tuple[str, ...] = ()


class HooksSection(HookPoints):
    """Hooks of the proxy itself, and default hooks of all models."""

    on_startup: StartupSection = Field(default=StartupSection(), alias="on_startup")


class PeerTimeouts(Timeouts):
    """Timeouts of a peer; seconds."""

    response_header: int = 60


class PeerSection(Section):
    """Another server that offers models."""

    proxy: str
    api_key: SecretStr = SecretStr("")
    models: tuple[str, ...]
    filters: FiltersSection = FiltersSection()
    timeouts: PeerTimeouts = PeerTimeouts()


def _as_profile(value: object) -> object:
    if isinstance(value, (list, tuple)):
        raise refuse("expected a mapping with pins: the list form of profiles was removed")
    return value


class ProfileSection(Section):
    """Public names that mean other models while the profile is active."""

    description: str = ""
    pins: dict[str, str | None]


class SelectorSettings(Section):
    """Settings of a selector's strategy."""

    spillover: int = 1


class SelectorSection(Section):
    """A name that stands for one of several models, chosen for each request."""

    strategy: Literal["warm", "pin", "spillover"]
    targets: Annotated[tuple[str, ...], Field(min_length=1)]
    settings: SelectorSettings = SelectorSettings()
    name: str = ""
    description: str = ""
    unlisted: bool = False
    metadata: FreeForm = Field(default_factory=dict)


class GroupSection(Section):
    """Models that are swapped together."""

    swap: bool = True
    exclusive: bool = True
    persistent: bool = False
    members: tuple[str, ...] = ()


class MatrixSection(Section):
    """Combinations of models that may run at the same time, as expressions."""

    vars: dict[str, str] = Field(default_factory=dict)
    evict_costs: dict[str, int] = Field(default_factory=dict, alias="evict_costs")
    sets: dict[str, str] = Field(default_factory=dict)


class RouterSettings(Section):
    """Settings of the two routers."""

    groups: dict[str, GroupSection] = Field(default_factory=dict)
    matrix: MatrixSection | None = None


class RouterSection(Section):
    """Router: decides which models may run together."""

    use: Literal["group", "matrix", ""] = ""
    settings: RouterSettings = RouterSettings()


class FifoSection(Section):
    """Order of waiting requests."""

    priority: dict[str, int] = Field(default_factory=dict)


class SchedulerSettings(Section):
    """Settings of the scheduler."""

    fifo: FifoSection = FifoSection()


class SchedulerSection(Section):
    """Scheduler: orders waiting requests."""

    use: Literal["fifo", ""] = "fifo"
    settings: SchedulerSettings = SchedulerSettings()


class RoutingSection(Section):
    """Scheduler and router."""

    scheduler: SchedulerSection = SchedulerSection()
    router: RouterSection = RouterSection()


def _as_residency(value: object) -> object:
    return math.inf if value == "auto" else value


#: Seconds, or ``auto``: as long as the last start took.
Residency: TypeAlias = Annotated[
    float,
    Field(ge=0, allow_inf_nan=True),
    BeforeValidator(_as_residency, json_schema_input_type=float | Literal["auto"]),
]


class Queue(Section):
    """Limits of waiting requests; times in seconds."""

    limit: Annotated[int, Field(ge=1)] = 512
    timeout: Seconds = 300.0
    max_wait: SecondsOrOff = 30.0
    min_residency: Residency = 0.0


class ListenersSection(Section):
    """Limits of clients that listen to endless streams of events and logs."""

    limit: Annotated[int, Field(ge=1)] = 256
    per_key: Annotated[int, Field(ge=1)] = 64


class DocumentSection(Overridable):
    """The document without ``macros`` and ``models``, which are read separately."""

    health_check_timeout: int = Field(default=120, description="seconds; at least 15")
    log_level: str = "info"
    log_time_format: str = ""
    log_to_stdout: Literal["proxy", "upstream", "both", "none"] = "proxy"
    log_requests: bool = False
    metrics_max_in_memory: int = 1000
    capture_buffer: int = Field(default=5, description="MB")
    store: StoreSection | None = None
    ui: UiSection = UiSection()
    performance: PerformanceSection = PerformanceSection()
    start_port: Annotated[int, Field(ge=1, le=65535)] = 5800
    global_ttl: Annotated[int, Field(ge=0)] = Field(default=0, alias="globalTTL")
    unload_timeout: Count = 10
    send_loading_state: bool = False
    include_aliases_in_list: bool = False
    api_keys: tuple[ApiKeyEntrySection, ...] = ()
    allowed_origins: tuple[Origin, ...] = ()
    allowed_hosts: tuple[HostName, ...] = ()
    drop_env: tuple[VariableName, ...] = Field(
        default=(), description="variables that no model and no hook inherits"
    )
    trusted_proxies: tuple[Network, ...] = ()
    profiles: dict[str, Annotated[ProfileSection, BeforeValidator(_as_profile)]] = Field(
        default_factory=dict
    )
    selectors: dict[str, SelectorSection] = Field(default_factory=dict)
    peers: dict[str, PeerSection] = Field(default_factory=dict)
    upstream: UpstreamSection = UpstreamSection()
    hooks: HooksSection = HooksSection()
    routing: RoutingSection = RoutingSection()
    groups: dict[str, GroupSection] = Field(default_factory=dict)
    matrix: MatrixSection | None = None
    on_idle: str = ""
    on_idle_after: Seconds = 60.0
    queue: Queue = Queue()
    memory: MemoryEntry = MemorySection(mode="off")
    yields: tuple[YieldSection, ...] = Field(default=(), alias="yield")
    listeners: ListenersSection = ListenersSection()
    hook_timeout: Seconds = 30.0
    hook_limit: Annotated[int, Field(ge=1, description="commands of hooks at a time")] = 8
    shutdown_timeout: Seconds | None = None
    lifecycle: FreeForm = Field(default_factory=dict, description="changes to the chart")


class _Everything(DocumentSection):
    """A configuration of swapchart; accepts llama-swap's format."""

    macros: dict[str, str | int | float | bool] = Field(default_factory=dict)
    models: dict[str, ModelSection] = Field(default_factory=dict)


#: Known top-level keys.
TOP_KEYS = frozenset(str(field.alias) for field in _Everything.model_fields.values())


def config_schema() -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of the configuration file, for editors."""
    schema = _Everything.model_json_schema(by_alias=True, mode="validation")
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["patternProperties"] = {"^x-": {}}
    schema["title"] = "swapchart configuration"
    return schema
