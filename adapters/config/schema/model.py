"""Keys of one model, as its author writes them; ``document`` has the rest."""

from __future__ import annotations

import re
from typing import Annotated, Literal, TypeAlias

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    SecretStr,
    model_validator,
)

from .fields import CommandLine, Count, FreeForm, Modality, Seconds, SecondsOrOff, Section, refuse
from .hooks import HookPoints, Hooks, SettleSection
from .memory import ModelMemory, ModelMemoryEntry


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
    set_params: Params = Field(default_factory=dict)
    set_params_by_id: dict[str, Params] = Field(default_factory=dict, alias="setParamsByID")


class ModelFiltersSection(FiltersSection):
    """Filters of a model, with an additional old spelling."""

    strip_params_old: str = Field(
        default="", alias="strip_params", description="old spelling of stripParams"
    )


class Timeouts(Section):
    """Connection timeouts; seconds, 0 or less disables one."""

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
    """Abilities of a model; listed to clients, never enforced."""

    inputs: tuple[Modality, ...] = Field(default=(), alias="in")
    outputs: tuple[Modality, ...] = Field(default=(), alias="out")
    tools: bool = False
    reranker: bool = False
    context: Count = Field(default=0, description="tokens")


class Restart(Section):
    """Restart of a process that died; times in seconds."""

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
    """Inference request that serves as a liveness probe."""

    path: Annotated[str, Field(pattern="^/")] = "/v1/completions"
    json_body: FreeForm = Field(alias="json")


class Liveness(Section):
    """Liveness probe of a ready server; times in seconds, ``every: 0`` disables it."""

    every: SecondsOrOff = 0.0
    path: Annotated[str, Field(pattern="^/")] | None = None
    timeout: Seconds | None = Field(default=None, description="seconds; null is probeTimeout")
    failures: Annotated[int, Field(ge=1)] = 3
    request: LivenessRequest | None = None
    stalled: SecondsOrOff = 0.0
    first_byte: SecondsOrOff = Field(
        default=0.0, description="seconds without the first byte of a response; 0 is off"
    )


class Drain(Section):
    """In-flight requests of a model that is to stop."""

    timeout: Seconds = 30.0
    policy: Literal["cut", "wait", "refuse"] = "cut"


class SleepSection(Section):
    """Sleep of a model without stopping it; times in seconds, 0 means never."""

    after: SecondsOrOff = 0.0
    enter: Hooks = ()
    wake: Hooks = ()
    stop_after: SecondsOrOff = 0.0


class Kv(Section):
    """KV cache that survives the process; sizes in bytes, ages and times in seconds."""

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


def _as_prefetch(value: object) -> object:
    return "off" if value is False else value


class Overridable(Section):
    """Keys of a model that may also stand at the top level, as the default of all models."""

    start_timeout: Seconds | None = Field(default=None, description="seconds")
    stall_timeout: SecondsOrOff = Field(default=0.0, description="seconds without log output")
    max_keep_alive: SecondsOrOff = Field(
        default=0.0, description="seconds; longest X-Keep-Alive of a request, 0 is unlimited"
    )
    probe_timeout: Seconds = Field(
        default=2.0, description="seconds for a probe of a starting model; grows by itself"
    )
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
    prefetch: Annotated[
        Literal["auto", "off"],
        BeforeValidator(_as_prefetch, json_schema_input_type=Literal["auto", "off"]),
    ] = Field(default="auto", description="read files ahead during a swap; needs memory")
    pass_keys: bool = Field(
        default=False, description="the server of the model gets the API key of the client"
    )
    kv: Annotated[
        Kv, BeforeValidator(_as_kv, json_schema_input_type=Literal["keep", "off"] | Kv)
    ] = Kv(mode="off")


_COMMAND_OR_EXTERNAL: list[JsonValue] = [
    {"required": ["cmd"]},
    {"required": ["external"], "properties": {"external": {"const": True}}},
]


class ModelSection(HookPoints, Overridable):
    """One model under ``models``."""

    model_config = ConfigDict(json_schema_extra={"anyOf": _COMMAND_OR_EXTERNAL})

    cmd: CommandLine | None = Field(default=None, description="optional with external: true")
    cmd_stop: CommandLine = ""
    external: bool = Field(
        default=False, description="the server runs outside of the process tree of cmd"
    )
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
    memory: ModelMemoryEntry = Field(
        default=ModelMemory(is_auto=True),
        description="auto, a size, amounts by pool, or need, on, place, asleep, evictCost",
    )
