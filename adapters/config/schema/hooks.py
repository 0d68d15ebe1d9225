"""Keys of hooks, as their author writes them; ``build_hooks`` makes the actions.

``runtime/hook_actions.py`` lists the files that a new kind of action touches.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BeforeValidator, Field, SecretStr, model_validator

from .fields import CommandLine, Count, Seconds, SecondsOrOff, Section, refuse


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
    """One hook: a command to run or an HTTP request to make, with its limits."""

    run: CommandLine | None = None
    shell: bool = False
    http: HttpSection | None = None
    timeout: Seconds | None = Field(default=None, description="seconds; default: hookTimeout")
    retries: Count = 0
    delay: SecondsOrOff = Field(default=1.0, description="seconds between two attempts")
    on_error: Literal["warn", "ignore", "fail"] = "warn"

    @model_validator(mode="after")
    def _one_kind(self) -> HookSection:
        if (self.run is None) == (self.http is None):
            both = "both" if self.run is not None else "neither"
            raise refuse(f"expected either run or http, found {both}")
        if self.shell and not isinstance(self.run, str):
            raise refuse("expected run to be a text, since shell is true")
        return self


def _as_hooks(value: object) -> object:
    if value is None:
        return ()
    if isinstance(value, str) and not value.strip():
        return ()
    hooks = value if isinstance(value, (list, tuple)) else [value]
    return tuple({"run": item} if isinstance(item, str) else item for item in hooks)


Hooks: TypeAlias = Annotated[
    tuple[HookSection, ...],
    BeforeValidator(
        _as_hooks, json_schema_input_type=str | HookSection | tuple[str | HookSection, ...]
    ),
]


class HookPoints(Section):
    """Hook points: the moments in the life of a model at which hooks run."""

    before_start: Hooks | None = None
    after_start: Hooks | None = None
    after_healthy: Hooks | None = None
    after_ready: Hooks | None = None
    before_stop: Hooks | None = None
    after_stop: Hooks | None = None
    on_failure: Hooks | None = None


class SettleSection(Section):
    """Check that the memory of a stopped model is free: by a command, or by nvidia-smi."""

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
