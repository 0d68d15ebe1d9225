"""The keys of one model, as its author writes them; ``schema`` has the rest of the document."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BeforeValidator, Field, SecretStr, model_validator

from .fields import CommandLine, Count, FreeForm, Modality, Seconds, SecondsOrOff, Section, refuse


def _as_statuses(value: object) -> object:
    values = tuple(value) if isinstance(value, (list, tuple)) else (value,)
    for status in values:
        if isinstance(status, bool) or not isinstance(status, int) or not 100 <= status <= 599:
            raise refuse("expected an HTTP status (100 to 599) or a list of them")
    return values


Statuses: TypeAlias = Annotated[
    tuple[int, ...],
    BeforeValidator(_as_statuses, json_schema_input_type=int | tuple[int, ...]),
]


class HttpSection(Section):
    """An HTTP request made by a hook."""

    method: Annotated[str, Field(pattern=r"^[A-Za-z]+$")] = "POST"
    url: str
    json_body: Any = Field(default=None, alias="json")
    body: str | None = None
    headers: dict[str, SecretStr] = Field(default_factory=dict)
    expect: Statuses = ()

    @model_validator(mode="after")
    def _one_body(self) -> HttpSection:
        if self.body is not None and self.json_body is not None:
            raise refuse("expected json or body, found both")
        return self


class HookSection(Section):
    """One action of a hook: a command to run, or an HTTP request to make."""

    run: CommandLine | None = None
    shell: bool = False
    http: HttpSection | None = None
    timeout: Seconds | None = Field(default=None, description="seconds; default: hookTimeout")
    retries: Count = 0
    delay: SecondsOrOff = Field(default=1.0, description="seconds between two tries")
    on_error: Literal["warn", "ignore", "fail"] = "warn"

    @model_validator(mode="after")
    def _one_kind(self) -> HookSection:
        if (self.run is None) == (self.http is None):
            both = "both" if self.run is not None else "neither"
            raise refuse(f"expected either run or http, found {both}")
        if self.shell and not isinstance(self.run, str):
            raise refuse("expected run to be a text, since shell is true")
        return self


def _as_actions(value: object) -> object:
    if value is None:
        return ()
    if isinstance(value, str) and not value.strip():
        return ()
    actions = value if isinstance(value, (list, tuple)) else [value]
    return tuple({"run": item} if isinstance(item, str) else item for item in actions)


Hooks: TypeAlias = Annotated[
    tuple[HookSection, ...],
    BeforeValidator(
        _as_actions, json_schema_input_type=str | HookSection | tuple[str | HookSection, ...]
    ),
]


class HookPoints(Section):
    """Where hooks can be hung into the life of a model."""

    before_start: Hooks | None = None
    after_start: Hooks | None = None
    after_healthy: Hooks | None = None
    after_ready: Hooks | None = None
    before_stop: Hooks | None = None
    after_stop: Hooks | None = None
    on_failure: Hooks | None = None


class FiltersSection(Section):
    """Changes made to the JSON body of a request."""

    strip_params: str = ""
    set_params: FreeForm = Field(default_factory=dict)
    set_params_by_id: dict[str, FreeForm] = Field(default_factory=dict, alias="setParamsByID")


class ModelFiltersSection(FiltersSection):
    """Filters of a model; they have one more spelling."""

    strip_params_old: str = Field(
        default="", alias="strip_params", description="old spelling of stripParams"
    )


class Timeouts(Section):
    """Connection timeouts; seconds, 0 or less is off."""

    connect: int = 30
    keepalive: int = 30
    response_header: int = 0
    tls_handshake: int = 10
    expect_continue: int = 1
    idle_conn: int = 90


class Compat(Section):
    """Settings for unusual servers."""

    ignore_websockets: bool = False


class Capabilities(Section):
    """What a model can do; only listed, never enforced."""

    inputs: tuple[Modality, ...] = Field(default=(), alias="in")
    outputs: tuple[Modality, ...] = Field(default=(), alias="out")
    tools: bool = False
    reranker: bool = False
    context: Count = Field(default=0, description="tokens")


class Restart(Section):
    """Whether and how fast a dead process is started again; times in seconds."""

    policy: Literal["temporary", "transient", "permanent"] = "temporary"
    intensity: Count = 5
    period: Seconds = 60.0
    backoff: Seconds = 1.0
    backoff_max: Seconds = 60.0
    cooldown: Seconds = 60.0

    @model_validator(mode="after")
    def _in_order(self) -> Restart:
        if self.backoff_max < self.backoff:
            raise refuse(f"expected backoffMax >= backoff ({self.backoff:g} s)")
        return self


class LivenessRequest(Section):
    """A request that makes the server infer something."""

    path: Annotated[str, Field(pattern="^/")] = "/v1/completions"
    json_body: FreeForm = Field(alias="json")


class Liveness(Section):
    """How a ready server is watched; times in seconds, ``every: 0`` is not at all."""

    every: SecondsOrOff = 0.0
    path: Annotated[str, Field(pattern="^/")] | None = None
    timeout: Seconds = 2.0
    failures: Annotated[int, Field(ge=1)] = 3
    request: LivenessRequest | None = None
    stalled: SecondsOrOff = 0.0


class Drain(Section):
    """What becomes of requests in flight when a model is to stop."""

    timeout: Seconds = 30.0
    policy: Literal["cut", "wait", "refuse"] = "cut"


class SleepSection(Section):
    """A rest without stopping; times in seconds, 0 is never."""

    after: SecondsOrOff = 0.0
    enter: Hooks = ()
    wake: Hooks = ()
    stop_after: SecondsOrOff = 0.0


class SettleSection(Section):
    """Who tells that the memory of a stopped model is free: a command, or nvidia-smi."""

    run: CommandLine | None = None
    gpu_below: Annotated[int, Field(ge=1)] | None = Field(
        default=None, description="MiB in use on each GPU of the model, where there is nvidia-smi"
    )
    timeout: Seconds = 10.0

    @model_validator(mode="after")
    def _one_kind(self) -> SettleSection:
        if (self.run is None) == (self.gpu_below is None):
            both = "both" if self.run is not None else "neither"
            raise refuse(f"expected either run or gpuBelow, found {both}")
        return self


class Kv(Section):
    """Whether the KV cache outlives the process; sizes in bytes, ages and times in seconds."""

    mode: Literal["keep", "off"] = "keep"
    dir: str | None = None
    manage_args: bool = False
    max_bytes: Annotated[int, Field(gt=0)] | None = None
    max_age: Seconds | None = None
    min_tokens: Count = 256
    timeout: Seconds = 10.0
    tmpfs: str | None = None
    allow_swa: bool = False


def _as_kv(value: object) -> object:
    if isinstance(value, bool):
        value = "keep" if value else "off"
    return {"mode": value} if isinstance(value, str) else value


class Overridable(Section):
    """Keys of a model that may also stand at the top level, as the default of all models."""

    start_timeout: Seconds | None = Field(default=None, description="seconds")
    stall_timeout: SecondsOrOff = Field(default=0.0, description="seconds without log output")
    abandon: Literal["finish", "abort"] = "finish"
    restart: Restart = Restart()
    liveness: Liveness = Liveness()
    drain: Drain = Drain()
    sleep: SleepSection = SleepSection()
    hook_points: dict[str, Hooks] = Field(
        default_factory=dict, description="hooks at points of your own, which lifecycle adds"
    )
    settle: SettleSection | None = None
    pinned: bool = False
    kv: Annotated[
        Kv, BeforeValidator(_as_kv, json_schema_input_type=Literal["keep", "off"] | Kv)
    ] = Kv(mode="off")


class ModelSection(HookPoints, Overridable):
    """One model under ``models``."""

    cmd: CommandLine
    cmd_stop: CommandLine = ""
    proxy: str = "http://localhost:${PORT}"
    check_endpoint: str = "/health"
    aliases: tuple[str, ...] = ()
    env: tuple[SecretStr, ...] = ()
    ttl: Annotated[int, Field(ge=-1)] = Field(default=-1, description="seconds; -1 is globalTTL")
    unload_timeout: Count = Field(default=0, description="seconds; 0 is the global unloadTimeout")
    health_check_timeout: int | None = None
    unlisted: bool = False
    use_model_name: str = ""
    name: str = ""
    description: str = ""
    concurrency_limit: int = 0
    filters: ModelFiltersSection = ModelFiltersSection()
    macros: dict[str, str | int | float | bool] = Field(default_factory=dict)
    metadata: FreeForm = Field(default_factory=dict)
    send_loading_state: bool | None = None
    timeouts: Timeouts = Timeouts()
    compat: Compat = Compat()
    capabilities: Capabilities = Capabilities()
