"""Keys of the document, as its author writes them, with their types and ranges.

docs/llama-swap.md compares the keys with llama-swap's. `config_schema` returns the JSON Schema
of the file, for editors.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from .access_fields import HostName, Origin, VariableName
from .cluster import ClusterSection
from .fields import ApiKeyEntrySection, CommandLine, Count, Duration, FreeForm, Network, Seconds
from .hooks import HookPoints
from .memory import MemoryEntry, MemorySection
from .model import ModelSection, Overridable
from .ollama import OllamaSection
from .routing import (
    GroupSection,
    MatrixSection,
    PeerSection,
    ProfileSection,
    Queue,
    RoutingSection,
    SelectorSection,
    as_profile,
)
from .section import BeforeValidator, Field, Section, refuse
from .yielding import YieldSection

_IGNORED = r".*\.(js|json|css|png|gif|jpg|jpeg|ico|txt)$"
_SESSION_HEADERS = ("X-Session-ID", "X-Litellm-Session-Id")


class StoreSection(Section):
    """Storage of the activity list."""

    path: Annotated[str, Field(min_length=1)]
    """File of the activity list; the default is in the state directory.

    Example: `path: activity.db`
    """


class ActivitySection(Section):
    """The Activity page."""

    session_id: tuple[str, ...] = Field(default=_SESSION_HEADERS, alias="session_id")
    """Request headers whose value groups requests into sessions on the Activity page.

    Example: `session_id: [X-Session-ID]`
    """


class UiSection(Section):
    """The web pages."""

    activity: ActivitySection = ActivitySection()
    """The Activity page. Example: `activity: {session_id: [X-Session-ID]}`"""


def _as_interval(seconds: float) -> float:
    if seconds == 0:
        return 5.0
    if seconds < 5:
        raise refuse("every must be at least 5s")
    return seconds


class PerformanceSection(Section):
    """Sampling of the machine's load."""

    disabled: bool = False
    """Do not sample the load of the machine. Example: `disabled: true`"""
    every: Duration = 5.0
    """Time between two samples, at least 5s. Example: `every: 15s`"""

    def _check_fields(self) -> None:
        _as_interval(self.every)

    @property
    def every_s(self) -> float | None:
        """Time between two samples, seconds >= 5; None means that nothing is sampled."""
        return None if self.disabled else _as_interval(self.every)


class UpstreamSection(Section):
    """The ``/upstream`` passthrough."""

    ignore_paths: tuple[str, ...] = (_IGNORED,)
    r"""Regular expressions of paths below `/upstream/MODEL` that do not load the model.

    Example: `ignorePaths: ['.*\.css$']`
    """
    start_on_get: Literal["all", "pages", "none"] = "all"
    """GET requests that start their model if it is not loaded: `all`, `none`, or `pages`, which
    are those of a browser that opens a page, and the path `/`.

    Example: `startOnGet: pages`
    """


class StartupSection(Section):
    """Actions at the start of the proxy."""

    preload: tuple[str, ...] = ()
    """Models that are loaded when the proxy starts. Example: `preload: [qwen]`"""


class HooksSection(HookPoints):
    """Hooks of the proxy itself, and default hooks of all models."""

    on_startup: StartupSection = Field(default=StartupSection(), alias="on_startup")
    """Actions at the start of the proxy. Example: `on_startup: {preload: [qwen]}`"""


class ListenersSection(Section):
    """Limits of clients that listen to endless streams of events and logs."""

    limit: Annotated[int, Field(ge=1)] = 256
    """Most clients that follow events and logs at a time. Example: `limit: 100`"""
    per_key: Annotated[int, Field(ge=1)] = 64
    """Most of them with the same API key. Example: `perKey: 8`"""


class KeepModelsSection(Section):
    """Models that outlive the proxy."""

    lease: Seconds = 120.0
    """Seconds for which models run without a proxy; then they are stopped with their hooks.

    Example: `lease: 300`
    """


def _as_keep_models(value: object) -> object:
    if isinstance(value, bool):
        return {} if value else None
    return value


#: True or a mapping; None and false are off.
KeepModels: TypeAlias = Annotated[
    KeepModelsSection | None,
    BeforeValidator(_as_keep_models, json_schema_input_type=bool | KeepModelsSection),
]


class DocumentSection(Overridable):
    """The document without ``macros`` and ``models``, which are read separately."""

    health_check_timeout: int = 120
    """Default of `startTimeout` in seconds; at least 15. Example: `healthCheckTimeout: 300`"""
    log_level: str = "info"
    """Least level of the log: `debug`, `info`, `warn` or `error`. Example: `logLevel: debug`"""
    log_time_format: str = ""
    """Accepted for llama-swap, without effect. Example: `logTimeFormat: rfc3339`"""
    log_to_stdout: Literal["proxy", "upstream", "both", "none"] = "proxy"
    """`upstream` and `both` print the output of models on standard output.

    Example: `logToStdout: both`
    """
    log_requests: bool = False
    """Accepted for llama-swap, without effect. Example: `logRequests: true`"""
    metrics_max_in_memory: int = 1000
    """Rows of the activity list that are kept without a state directory.

    Example: `metricsMaxInMemory: 5000`
    """
    capture_buffer: int = 5
    """Memory for headers and bodies of recent requests in MB; 0 turns captures off.

    Example: `captureBuffer: 20`
    """
    store: StoreSection | None = None
    """Storage of the activity list. Example: `store: {path: activity.db}`"""
    ui: UiSection = UiSection()
    """The web pages. Example: `ui: {activity: {session_id: [X-Session-ID]}}`"""
    performance: PerformanceSection = PerformanceSection()
    """Sampling of the machine's load. Example: `performance: {every: 15s}`"""
    start_port: Annotated[int, Field(ge=1, le=65535)] = 5800
    """First port of models whose command uses `${PORT}`. Example: `startPort: 9000`"""
    global_ttl: Annotated[int, Field(ge=0)] = Field(default=0, alias="globalTTL")
    """Idle seconds until a model without `ttl` is stopped; 0 is never. Example: `globalTTL: 600`"""
    unload_timeout: Count = 10
    """Grace period in seconds from SIGTERM or `cmdStop` to SIGKILL. Example: `unloadTimeout: 20`"""
    send_loading_state: bool = False
    """Streams begin before the model is ready, with chunks that tell the progress.

    Example: `sendLoadingState: true`
    """
    include_aliases_in_list: bool = False
    """List aliases in `/v1/models` as models of their own. Example: `includeAliasesInList: true`"""
    api_keys: tuple[ApiKeyEntrySection, ...] = ()
    """API keys of clients, as texts or with scopes and models; without them every client may
    do everything.

    Example: `apiKeys: [sk-example]`
    """
    allowed_origins: tuple[Origin, ...] = ()
    """Origins of web pages on other machines that may send requests; `*` matches any text.

    Example: `allowedOrigins: ["https://chat.example.org"]`
    """
    allowed_hosts: tuple[HostName, ...] = ()
    """Host names by which clients may reach a loopback address; `*` matches any text.

    Example: `allowedHosts: [proxy.lan]`
    """
    drop_env: tuple[VariableName, ...] = ()
    """Variables that no model and no hook inherits. Example: `dropEnv: [AWS_SECRET_ACCESS_KEY]`"""
    trusted_proxies: tuple[Network, ...] = ()
    """Reverse proxies whose `X-Forwarded-For` counts, as addresses or networks.

    Example: `trustedProxies: [127.0.0.1]`
    """
    ollama: OllamaSection | None = None
    """A listener for clients of Ollama. Example: `ollama: {listen: "127.0.0.1:11434"}`"""
    profiles: dict[str, Annotated[ProfileSection, BeforeValidator(as_profile)]] = Field(
        default_factory=dict
    )
    """Public names that mean other models while the profile is active.

    Example: `profiles: {night: {pins: {main: qwen}}}`
    """
    selectors: dict[str, SelectorSection] = Field(default_factory=dict)
    """Names that stand for one of several models, chosen for each request.

    Example: `selectors: {any: {strategy: warm, targets: [qwen, small]}}`
    """
    peers: dict[str, PeerSection] = Field(default_factory=dict)
    """Other servers that offer models.

    Example: `peers: {lan: {proxy: "http://192.168.1.20:8080", models: [big]}}`
    """
    upstream: UpstreamSection = UpstreamSection()
    r"""The `/upstream` passthrough. Example: `upstream: {ignorePaths: ['.*\.css$']}`"""
    hooks: HooksSection = HooksSection()
    """Hooks of all models that have none of their own at a point, and actions at the start of
    the proxy.

    Example: `hooks: {beforeStop: logger a model stops}`
    """
    routing: RoutingSection = RoutingSection()
    """Scheduler and router, in llama-swap's newer form.

    Example: `routing: {scheduler: {settings: {fifo: {priority: {qwen: 10}}}}}`
    """
    groups: dict[str, GroupSection] = Field(default_factory=dict)
    """Models that are swapped together, by the name of the group.

    Example: `groups: {chat: {swap: false, members: [qwen, small]}}`
    """
    matrix: MatrixSection | None = None
    """Combinations of models that may run at the same time; instead of `groups`.

    Example: `matrix: {sets: {pair: qwen & small}}`
    """
    on_idle: str = ""
    """Model that is loaded when no request has come for `onIdleAfter`. Example: `onIdle: small`"""
    on_idle_after: Seconds = 60.0
    """Seconds without any request until `onIdle` is loaded. Example: `onIdleAfter: 300`"""
    queue: Queue = Queue()
    """Limits of waiting requests. Example: `queue: {limit: 100}`"""
    memory: MemoryEntry = MemorySection(mode="off")
    """Memory of the machine and how the scheduler uses it: `off`, `observe`, `auto` or a
    mapping.

    Example: `memory: auto`
    """
    yields: tuple[YieldSection, ...] = Field(default=(), alias="yield")
    """Rules by which models leave memory to other programs.

    Example: `memory: auto, yield: [{pools: [RAM], when: {process: blender}}]`
    """
    container_engine: CommandLine = ()
    """Program that runs containers, with its global options; by default podman or docker,
    whichever is there, or that of the variable SWAPCHART_CONTAINER_ENGINE.

    Example: `containerEngine: docker`
    """
    cluster: ClusterSection | None = None
    """Other machines that models may run on; see `nodes` of a model.

    Example: `cluster: {engine: ray}`
    """
    listeners: ListenersSection = ListenersSection()
    """Limits of clients that follow events and logs. Example: `listeners: {limit: 100}`"""
    hook_timeout: Seconds = 30.0
    """Seconds for each attempt of a hook without a `timeout` of its own.

    Example: `hookTimeout: 60`
    """
    hook_limit: Annotated[int, Field(ge=1)] = 8
    """Most hook commands that run at a time, over all models. Example: `hookLimit: 4`"""
    tracing: bool = False
    """Send traces of requests and swaps to an OpenTelemetry collector, as the environment variables
    `OTEL_*` say; needs the extra `otel`.

    Example: `tracing: true`
    """
    keep_models: KeepModels = None
    """Models outlive the proxy: SIGTERM and SIGKILL leave them running, and the next `serve` goes
    on with them.

    Example: `keepModels: true`
    """
    shutdown_timeout: Seconds | None = None
    """Most seconds of a shutdown; by default the longest stop of any model.

    Example: `shutdownTimeout: 90`
    """
    lifecycle: FreeForm = Field(default_factory=dict)
    """Changes to the chart of the lifecycle, as an overlay. Example: `lifecycle: {}`"""


class _Everything(DocumentSection):
    """A configuration of swapchart; accepts llama-swap's format."""

    macros: dict[str, str | int | float | bool] = Field(default_factory=dict)
    """Texts and numbers that `${NAME}` stands for. Example: `macros: {folder: /models}`"""
    models: dict[str, ModelSection] = Field(default_factory=dict)
    """Models by the name that clients send.

    Example: `models: {tiny: {cmd: "llama-server --port ${PORT} -m tiny.gguf"}}`
    """


#: Known top-level keys.
TOP_KEYS = frozenset(field.alias for field in _Everything.model_fields.values())


def config_schema() -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of the configuration file, for editors."""
    from .describe import describe
    from .json_schema import json_schema

    schema = json_schema(_Everything)
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["patternProperties"] = {"^x-": {}}
    describe(schema, _Everything)
    schema["title"] = "swapchart configuration"
    return schema
