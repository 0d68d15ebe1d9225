"""Configuration values with every default applied, as the rest of the program uses them.

Two models are equal if no difference matters to a running process; a reload keeps the process of
a model that is equal to its former version.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

from ...dataclass import dataclass, field
from ...runtime.container import Container
from ...runtime.spec import Hook
from .document.settings import Setting
from .problems import Problem
from .schema.cluster import ClusterSection
from .schema.document import ListenersSection
from .schema.fields import KeyScope
from .schema.kv import Kv
from .schema.memory import MemorySection, ModelMemory
from .schema.model import Capabilities, Drain, Liveness, Restart, Timeouts
from .schema.ollama import OllamaSection
from .schema.routing import Queue
from .schema.section import SecretStr
from .schema.yielding import YieldSection


@dataclass(frozen=True, slots=True, kw_only=True)
class Sleep:
    """Sleep of a model without stopping it; seconds, 0 means never."""

    after_s: float = 0.0
    enter: tuple[Hook, ...] = ()
    wake: tuple[Hook, ...] = ()
    stop_after_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Filters:
    """Changes to the JSON body of a request, applied in this order; none changes ``model``.

    Attributes:
        strip: Keys to remove, sorted.
        set_params: Path -> value, in sorted order.
        set_params_by_id: Requested name -> like ``set_params``.
    """

    strip: tuple[str, ...] = ()
    set_params: Mapping[str, Any] = field(default_factory=dict)
    set_params_by_id: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeChoice:
    """Nodes of the cluster that a model may run on.

    Attributes:
        names: Names of the nodes, the preferred one first; empty means any of them.
        labels: Labels that a node must have.
        gpus: Number of whole GPUs that the model gets.
    """

    names: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    gpus: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """One model.

    Attributes:
        id: Its key under ``models``.
        cmd: Command as text, with macros and variables filled in; a list is quoted.
        cmd_shown: The same with ``${env.X}`` left as written, for display.
        argv: Program and arguments; empty only if the model is external and has no command.
        container: Container that the server runs in, with *argv* as its arguments; None means that
            *argv* is a command of this machine.
        pull: Hook that pulls the image of the container before a start; None pulls none.
        stop_argv: Command that runs instead of SIGTERM; may hold ``${PID}``; empty means SIGTERM.
        proxy: Base URL of the server, without a trailing slash.
        check_url: Absolute URL of the readiness probe; None means no probe.
        external: The server runs outside of the process tree of its command.
        port: Assigned port, or None.
        environment: Variables in addition to the proxy's own.
        hooks: Hook point (``afterHealthy``...) -> hooks in order; points without hooks are absent.
        ttl: Idle seconds after which it is stopped; 0 means never.
        unload_timeout: Seconds between SIGTERM and SIGKILL; > 0.
        health_check_timeout: Seconds to become healthy; >= 15.
        start_timeout: Seconds for the whole start; > 0.
        max_keep_alive: Longest idle limit in seconds that a request may set; 0 is unlimited.
        stall_timeout: Seconds without log output after which a start has stalled; 0 is off.
        probe_timeout: Seconds for the first probe of a start; > 0.
        aliases: Other names, including those of ``filters.setParamsByID``.
        concurrency_limit: Maximum number of requests at once; >= 1, None means unlimited.
        settle: Hook that succeeds once its memory is free; None means no wait.
        prefetch: ``auto`` reads its files ahead while others stop for it, where memory is on.
        pass_keys: Its server gets the API keys of clients.
        nodes: Nodes of the cluster that it may run on; None means this machine.
        memory: Memory that it needs.
        macros: Its own macros, as declared.
    """

    id: str
    cmd: str = field(repr=False)
    cmd_shown: str = field(default="", repr=False, compare=False)
    argv: tuple[str, ...] = field(repr=False)
    container: Container | None = field(default=None, repr=False)
    pull: Hook | None = field(default=None, repr=False)
    stop_argv: tuple[str, ...] = field(default=(), repr=False)
    proxy: str = field(repr=False)
    check_url: str | None = field(repr=False)
    external: bool = False
    port: int | None = None
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    hooks: Mapping[str, tuple[Hook, ...]] = field(default_factory=dict)
    ttl: int = 0
    unload_timeout: float = 10.0
    health_check_timeout: float = 120.0
    start_timeout: float = 120.0
    stall_timeout: float = 0.0
    max_keep_alive: float = 0.0
    probe_timeout: float = 2.0
    aliases: tuple[str, ...] = ()
    name: str = ""
    description: str = ""
    use_model_name: str = ""
    unlisted: bool = False
    concurrency_limit: int | None = None
    send_loading_state: bool = False
    filters: Filters = Filters()
    metadata: Mapping[str, Any] = field(default_factory=dict, repr=False)
    macros: Mapping[str, str | int | float | bool] = field(
        default_factory=dict, repr=False, compare=False
    )
    timeouts: Timeouts = field(default_factory=Timeouts)
    ignore_websockets: bool = False
    capabilities: Capabilities = field(default_factory=Capabilities)
    abandon: Literal["finish", "abort"] = "finish"
    restart: Restart = field(default_factory=Restart)
    liveness: Liveness = field(default_factory=Liveness)
    drain: Drain = field(default_factory=Drain)
    sleep: Sleep = Sleep()
    settle: Hook | None = None
    pinned: bool = False
    prefetch: Literal["auto", "off"] = "auto"
    pass_keys: bool = False
    nodes: NodeChoice | None = None
    memory: ModelMemory = field(default_factory=lambda: ModelMemory(is_auto=True))
    kv: Kv = field(default_factory=lambda: Kv(mode="off"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """Another server that offers models.

    Attributes:
        proxy: Its base URL, without a trailing slash.
        api_key: Credential for it; None forwards those of the client.
        models: Bare names, in order.
    """

    id: str
    proxy: str = field(repr=False)
    api_key: SecretStr | None
    models: tuple[str, ...]
    filters: Filters = Filters()
    timeouts: Timeouts


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """Public name -> its target while the profile is active; None disables the name."""

    id: str
    description: str
    pins: Mapping[str, str | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Selector:
    """A name for one of several models.

    Attributes:
        targets: Names as written, at least one.
        spillover: Reservations per target before the next one is used; >= 1.
    """

    id: str
    strategy: Literal["warm", "pin", "spillover"]
    targets: tuple[str, ...]
    spillover: int = 1
    name: str = ""
    description: str = ""
    unlisted: bool = False
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Models that are swapped together."""

    id: str
    members: tuple[str, ...]
    swap: bool = True
    exclusive: bool = True
    persistent: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Matrix:
    """Which models may run at the same time.

    Attributes:
        variables: Short name -> model id.
        costs: Model id -> cost of evicting it; > 0, 1 if absent.
        sets: Name -> expression as written, in order of definition.
    """

    variables: Mapping[str, str]
    costs: Mapping[str, int]
    sets: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Routing:
    """Combinations that may run together, and priorities of requests.

    Attributes:
        use: The router in force.
        groups: Groups in order of definition; the last, ``(default)``, has all remaining models.
        matrix: The matrix; None if there is none.
        priorities: Model id -> priority; 0 if absent.
    """

    use: Literal["group", "matrix"]
    groups: Mapping[str, Group]
    matrix: Matrix | None
    priorities: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKeyEntry:
    """One API key and its permissions.

    Attributes:
        key: The key, or its hash, as written.
        name: Its name; empty if it has none.
        scopes: ``infer`` for inference, ``metrics`` for ``/metrics``, ``admin`` for everything but
            inference. At least one.
        models: Names or patterns of models; None means all.
    """

    key: SecretStr
    scopes: frozenset[KeyScope] = frozenset(("infer", "admin"))
    models: frozenset[str] | None = None
    name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """A whole configuration without errors; times in seconds.

    Attributes:
        models: Id -> model, in order of definition.
        aliases: Alias -> model id.
        api_keys: Keys of ``api_key_entries``; empty means that no key is required.
        allowed_origins: Origins of web pages that may use the API, besides those of this machine.
        allowed_hosts: Further accepted values of the Host header.
        drop_env: Variables that no model and no hook inherits: those of ``dropEnv``, and those
            that hold keys of ``api_key_entries``.
        ollama: Listener of Ollama's API; None means that there is none.
        trusted_proxies: Addresses or networks whose X-Forwarded-* headers are trusted.
        capture_bytes: Memory for captures; 0 disables them.
        store_path: SQLite file; None keeps activity in memory.
        performance_every: Interval between samples; None disables sampling.
        peer_names: Name of a remote model, full or bare -> (peer id, bare model name).
        ignore_paths: Patterns for paths below ``/upstream/<model>`` that do not load the model.
        start_on_get: Which GET requests start their model.
        preload: Ids of models to load at the start.
        on_idle: Id of the model to load when idle, or None.
        hook_limit: Maximum number of hook commands at once, over all models.
        tracing: Requests and swaps are traced by OpenTelemetry.
        keep_lease_s: Seconds for which models may outlive the proxy; None means that they end with
            it.
        shutdown_timeout: Limit of a shutdown; None computes it from the models.
        memory: Memory of the machine, and how the scheduler uses it.
        yields: Rules by which models leave memory to other programs.
        cluster: Cluster on whose nodes models may run; None means this machine only.
        lifecycle: Changes to the chart of every model, as written; `machine` checks them.
        warnings: Problems that do not prevent its use.
        sources: File -> its text as written; may hold secrets.
        settings: Model -> its settings with file and line; may hold secrets.
    """

    models: Mapping[str, ModelConfig]
    aliases: Mapping[str, str] = field(default_factory=dict)
    health_check_timeout: float = 120.0
    unload_timeout: float = 10.0
    global_ttl: int = 0
    start_port: int = 5800
    log_level: Literal["debug", "info", "warn", "error"] = "info"
    log_time_format: str = ""
    log_to_stdout: Literal["proxy", "upstream", "both", "none"] = "proxy"
    metrics_max_in_memory: int = 1000
    capture_bytes: int = 5 << 20
    store_path: str | None = None
    session_headers: tuple[str, ...] = ()
    performance_every: float | None = 5.0
    send_loading_state: bool = False
    include_aliases_in_list: bool = False
    api_keys: tuple[SecretStr, ...] = ()
    api_key_entries: tuple[ApiKeyEntry, ...] = ()
    allowed_origins: tuple[str, ...] = ()
    allowed_hosts: tuple[str, ...] = ()
    drop_env: frozenset[str] = frozenset()
    trusted_proxies: tuple[str, ...] = ()
    ollama: OllamaSection | None = None
    macros: Mapping[str, str | int | float | bool] = field(default_factory=dict, repr=False)
    profiles: Mapping[str, Profile] = field(default_factory=dict)
    selectors: Mapping[str, Selector] = field(default_factory=dict)
    peers: Mapping[str, Peer] = field(default_factory=dict)
    peer_names: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    ignore_paths: tuple[re.Pattern[str], ...] = ()
    start_on_get: Literal["all", "pages", "none"] = "all"
    preload: tuple[str, ...] = ()
    routing: Routing
    on_idle: str | None = None
    on_idle_after: float = 60.0
    queue: Queue = field(default_factory=Queue)
    memory: MemorySection = field(default_factory=lambda: MemorySection(mode="off"))
    yields: tuple[YieldSection, ...] = ()
    cluster: ClusterSection | None = None
    listeners: ListenersSection = field(default_factory=ListenersSection)
    hook_timeout: float = 30.0
    hook_limit: int = 8
    tracing: bool = False
    keep_lease_s: float | None = None
    shutdown_timeout: float | None = None
    lifecycle: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[Problem, ...] = ()
    sources: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)
    settings: Mapping[str, tuple[Setting, ...]] = field(
        default_factory=dict, repr=False, compare=False
    )

    def real_name(self, name: str) -> str | None:
        """Return the id of the local model called *name* (its id first, then an alias)."""
        return name if name in self.models else self.aliases.get(name)
