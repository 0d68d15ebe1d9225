"""Keys of one model, as its author writes them; ``document`` has the rest."""

from __future__ import annotations

import re
from typing import Annotated, Any, ClassVar, Literal, TypeAlias

from .cluster import Nodes
from .container import ContainerSection
from .fields import CommandLine, Count, FreeForm, Modality, Seconds, SecondsOrOff
from .hooks import HookPoints, Hooks, SettleSection
from .kv import Kv, KvText
from .memory import ModelMemory, ModelMemoryEntry
from .section import AfterValidator, BeforeValidator, Field, SecretStr, Section, refuse


def _without_queries(paths: str) -> str:
    parts = re.split(r"[.,]", paths)
    if any(part.lstrip().startswith("#(") for part in parts):  # of gjson
        raise refuse("expected paths without queries such as #(a==1); # stands for all items")
    return paths


def _as_params(params: FreeForm) -> FreeForm:
    for path in params:
        if not path:
            raise refuse("expected a path, such as temperature or a.b, got an empty text")
        _without_queries(path)
    return params


#: Values to set in the body of a request, by path.
Params: TypeAlias = Annotated[FreeForm, AfterValidator(_as_params)]


class FiltersSection(Section):
    """Changes made to the JSON body of a request."""

    strip_params: Annotated[str, AfterValidator(_without_queries)] = ""
    """Parameters that are removed from the body, separated by commas.

    Example: `stripParams: "temperature, top_k"`
    """
    set_params: Params = Field(default_factory=dict)
    """Values that are set in the body, by path. Example: `setParams: {temperature: 0.7}`"""
    set_params_by_id: dict[str, Params] = Field(default_factory=dict, alias="setParamsByID")
    """Values that are set for one name of the model; the names become aliases.

    Example: `setParamsByID: {creative: {temperature: 1.2}}`
    """


class ModelFiltersSection(FiltersSection):
    """Filters of a model, with an additional old spelling."""

    strip_params_old: str = Field(default="", alias="strip_params")
    """Old spelling of `stripParams`. Example: `strip_params: top_k`"""


class Timeouts(Section):
    """Connection timeouts; seconds, 0 or less disables one."""

    connect: int = 30
    """Seconds to connect, TLS included; 0 is unlimited. The default for a model with `nodes` is 10.

    Example: `connect: 5`
    """
    keepalive: int = 30
    """Accepted for llama-swap, without effect. Example: `keepalive: 60`"""
    response_header: int = 0
    """Seconds until the first header of a response; 0 is unlimited.

    Example: `responseHeader: 600`
    """
    tls_handshake: int = 10
    """Accepted for llama-swap, without effect. Example: `tlsHandshake: 5`"""
    expect_continue: int = 1
    """Accepted for llama-swap, without effect. Example: `expectContinue: 2`"""
    idle_conn: int = 90
    """Accepted for llama-swap, without effect. Example: `idleConn: 60`"""


class Compat(Section):
    """Settings for unusual servers."""

    ignore_websockets: bool = False
    """Connections of WebSocket do not count as requests of the model.

    Example: `ignoreWebsockets: true`
    """


class Capabilities(Section):
    """Abilities of a model; listed to clients, never enforced."""

    inputs: tuple[Modality, ...] = Field(default=(), alias="in")
    """Kinds of input. Example: `in: [text, image]`"""
    outputs: tuple[Modality, ...] = Field(default=(), alias="out")
    """Kinds of output. Example: `out: [text]`"""
    tools: bool = False
    """The model can call tools. Example: `tools: true`"""
    reranker: bool = False
    """The model is a reranker. Example: `reranker: true`"""
    context: Count = 0
    """Tokens of the context; 0 is unknown. Example: `context: 16384`"""


class Restart(Section):
    """Restart of a process that died; times in seconds."""

    policy: Literal["temporary", "transient", "permanent"] = "temporary"
    """`temporary` restarts on the next request only, `transient` after a failure, `permanent`
    always.

    Example: `policy: transient`
    """
    intensity: Count = 5
    """Failures in a row that open the circuit breaker. Example: `intensity: 3`"""
    period: Seconds = 60.0
    """Seconds in `ready` after which the failure count is reset. Example: `period: 120`"""
    backoff: Seconds = 1.0
    """Seconds before the first restart; doubles with each failure. Example: `backoff: 2`"""
    backoff_max: Seconds = 60.0
    """Most seconds before a restart. Example: `backoffMax: 120`"""
    cooldown: Seconds = 60.0
    """Seconds until an open breaker allows one trial. Example: `cooldown: 30`"""

    def _check_fields(self) -> None:
        if self.backoff_max < self.backoff:
            raise refuse(f"expected backoffMax >= backoff ({self.backoff:g} s)")


class LivenessRequest(Section):
    """Inference request that serves as a liveness probe."""

    path: Annotated[str, Field(pattern="^/")] = "/v1/completions"
    """Path of the request. Example: `path: /v1/embeddings`"""
    json_body: FreeForm = Field(alias="json")
    """JSON body of the request. Example: `json: {prompt: "1", max_tokens: 1}`"""


class Liveness(Section):
    """Liveness probe of a ready server; times in seconds, ``every: 0`` disables it."""

    every: SecondsOrOff = 0.0
    """Seconds between probes of a ready model; 0 is off. Example: `every: 10`"""
    path: Annotated[str, Field(pattern="^/")] | None = None
    """Path of the probe; by default `checkEndpoint`. Example: `path: /v1/models`"""
    timeout: Seconds | None = None
    """Seconds for each probe; by default `probeTimeout`. Example: `timeout: 5`"""
    failures: Annotated[int, Field(ge=1)] = 3
    """Failed probes in a row that make the model unhealthy. Example: `failures: 5`"""
    request: LivenessRequest | None = None
    """POST with a JSON body as the probe, such as a real inference.

    Example: `request: {json: {prompt: "1", max_tokens: 1}}`
    """
    stalled: SecondsOrOff = 0.0
    """Seconds without a byte of a response stream until the model is unhealthy; 0 is off.

    Example: `stalled: 120`
    """
    first_byte: SecondsOrOff = 0.0
    """Seconds without the first header of a response until the model is unhealthy; 0 is off.

    Example: `firstByte: 900`
    """


class Drain(Section):
    """In-flight requests of a model that is to stop."""

    timeout: Seconds = 30.0
    """Seconds that an explicit stop waits for requests in flight. Example: `timeout: 120`"""
    policy: Literal["cut", "wait", "refuse"] = "cut"
    """Afterwards `cut` aborts the requests, `wait` keeps waiting, `refuse` cancels the stop.

    Example: `policy: wait`
    """


class SleepSection(Section):
    """Sleep of a model without stopping it; times in seconds, 0 means never."""

    after: SecondsOrOff = 0.0
    """Idle seconds until the model sleeps; 0 is never. Example: `after: 300`"""
    enter: Hooks = ()
    """Hooks that put the server to sleep.

    Example: `enter: [{http: {url: "http://127.0.0.1:${PORT}/sleep"}}]`
    """
    wake: Hooks = ()
    """Hooks that wake the server.

    Example: `wake: [{http: {url: "http://127.0.0.1:${PORT}/wake_up"}}]`
    """
    stop_after: SecondsOrOff = 0.0
    """Seconds asleep until the model is stopped; 0 is never. Example: `stopAfter: 3600`"""


def _as_prefetch(value: object) -> object:
    return "off" if value is False else value


class Overridable(Section):
    """Keys of a model that may also stand at the top level, as the default of all models."""

    start_timeout: Seconds | None = None
    """Seconds from the first probe to the first successful one; by default
    `healthCheckTimeout` of the top level.

    Example: `startTimeout: 600`
    """
    stall_timeout: SecondsOrOff = 0.0
    """Seconds without output until a start fails; 0 is off. Example: `stallTimeout: 120`"""
    max_keep_alive: SecondsOrOff = 0.0
    """Longest time in seconds that a request may set by `X-Keep-Alive`; 0 is unlimited.

    Example: `maxKeepAlive: 3600`
    """
    probe_timeout: Seconds = 2.0
    """Seconds for a probe of a starting model; grows by itself. Example: `probeTimeout: 5`"""
    abandon: Literal["finish", "abort"] = "finish"
    """`abort` stops a start when no request waits for it any more, `finish` completes it.

    Example: `abandon: abort`
    """
    restart: Restart = Restart()
    """Restart of a process that died. Example: `restart: {policy: transient}`"""
    liveness: Liveness = Liveness()
    """Liveness probe of a ready model. Example: `liveness: {every: 10}`"""
    drain: Drain = Drain()
    """Requests in flight of a model that is to stop. Example: `drain: {timeout: 120}`"""
    sleep: SleepSection = SleepSection()
    """Sleep of a model without stopping it.

    Example: `sleep: {after: 300, enter: ["sleep-now"], wake: ["wake-now"]}`
    """
    hook_points: dict[str, Hooks] = Field(default_factory=dict)
    """Hooks at points that `lifecycle` adds. Example: `hookPoints: {}`"""
    settle: SettleSection | None = None
    """Check that the memory of a stopped model is free. Example: `settle: {gpuBelow: 1000}`"""
    pinned: bool = False
    """The model is never evicted and never stopped for being idle. Example: `pinned: true`"""
    prefetch: Annotated[
        Literal["auto", "off"],
        BeforeValidator(_as_prefetch, json_schema_input_type=Literal["auto", "off"]),
    ] = "auto"
    """Read the files of a model ahead while other models stop for it; needs `memory`.

    Example: `prefetch: "off"`
    """
    pass_keys: bool = False
    """The server of the model gets the API key of the client. Example: `passKeys: true`"""
    kv: KvText = Kv(mode="off")
    """KV cache of llama-server that survives a stop: `keep`, `off` or a mapping.

    Example: `kv: "off"`
    """


class ModelSection(HookPoints, Overridable):
    """One model under ``models``."""

    json_schema_extra: ClassVar[dict[str, Any]] = {
        "anyOf": [
            {"required": ["cmd"]},
            {"required": ["container"]},
            {"required": ["external"], "properties": {"external": {"const": True}}},
        ]
    }

    cmd: CommandLine | None = None
    """Command that starts the server, without a shell; optional with `external`
    and `container`.

    Example: `cmd: "llama-server --port ${PORT} -m /models/qwen.gguf"`
    """
    container: ContainerSection | None = None
    """Container in which the server runs, by podman or docker; instead of `cmd`.

    Example: `container: {image: "vllm/vllm-openai:v0.11.0", port: 8000, gpus: all}`
    """
    cmd_stop: CommandLine = ""
    """Command that stops the server, instead of SIGTERM. Example: `cmdStop: "kill -INT ${PID}"`"""
    external: bool = False
    """The server runs outside of the process tree of `cmd` and is never signaled.

    Example: `external: true, proxy: "http://127.0.0.1:11434"`
    """
    proxy: str = "http://localhost:${PORT}"
    """Address of the server. Example: `proxy: "http://127.0.0.1:${PORT}"`"""
    check_endpoint: str = "/health"
    """Path of the health check; `none` turns it off. Example: `checkEndpoint: /v1/models`"""
    aliases: tuple[str, ...] = ()
    """Further names of the model. Example: `aliases: [gpt-4o-mini]`"""
    env: tuple[SecretStr, ...] = ()
    """Variables of the command. Example: `env: [CUDA_VISIBLE_DEVICES=0]`"""
    ttl: Annotated[int, Field(ge=-1)] = -1
    """Idle seconds until the model is stopped; 0 is never, -1 is `globalTTL`.

    Example: `ttl: 600`
    """
    unload_timeout: Count = 0
    """Grace period in seconds from SIGTERM or `cmdStop` to SIGKILL; 0 is the one of the top
    level.

    Example: `unloadTimeout: 20`
    """
    health_check_timeout: int | None = None
    """Without effect, as in llama-swap; see `startTimeout`. Example: `healthCheckTimeout: 300`"""
    unlisted: bool = False
    """Leave the model out of `/v1/models`; requests still work. Example: `unlisted: true`"""
    use_model_name: str = ""
    """Model name that the server gets in the body; by default the client's.

    Example: `useModelName: Qwen3-8B`
    """
    name: str = ""
    """Name that `/v1/models` shows. Example: `name: Qwen 3`"""
    description: str = ""
    """Description that `/v1/models` shows. Example: `description: for short answers`"""
    concurrency_limit: int = 0
    """Most running requests of the model; further ones get 429, 0 is unlimited.

    Example: `concurrencyLimit: 4`
    """
    filters: ModelFiltersSection = ModelFiltersSection()
    """Changes to the JSON body of requests. Example: `filters: {stripParams: top_k}`"""
    macros: dict[str, str | int | float | bool] = Field(default_factory=dict)
    """Macros of the model, which override those of the document. Example: `macros: {size: 8192}`"""
    metadata: FreeForm = Field(default_factory=dict)
    """Values that `/v1/models` shows. Example: `metadata: {family: qwen}`"""
    send_loading_state: bool | None = None
    """Streams begin before the model is ready; by default as at the top level.

    Example: `sendLoadingState: true`
    """
    timeouts: Timeouts = Timeouts()
    """Connection timeouts. Example: `timeouts: {connect: 5}`"""
    compat: Compat = Compat()
    """Settings for unusual servers. Example: `compat: {ignoreWebsockets: true}`"""
    capabilities: Capabilities = Capabilities()
    """Abilities that are listed to clients and never enforced.

    Example: `capabilities: {in: [text, image]}`
    """
    nodes: Nodes | None = None
    """Nodes of the `cluster` that the model may run on, or `any`; by default this machine.

    Example: `nodes: [box1, box2]`
    """
    labels: dict[str, str] = Field(default_factory=dict)
    """Labels that its node must have, such as those of nodes with its files.

    Example: `nodes: any, labels: {weights: all}`
    """
    gpus: Count = 0
    """Number of whole GPUs of one node that the model gets. Example: `nodes: any, gpus: 2`"""
    memory: ModelMemoryEntry = Field(default=ModelMemory(is_auto=True))
    """Memory that the model needs: `auto`, a size, amounts by pool, or a mapping.

    Example: `memory: 12GiB`
    """
