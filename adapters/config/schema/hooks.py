"""Keys of hooks, as their author writes them; ``build_hooks`` makes the actions.

``runtime/hook_actions.py`` lists the files that a new kind of action touches.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from .fields import CommandLine, Count, Seconds, SecondsOrOff
from .section import BeforeValidator, Field, SecretStr, Section, refuse


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
    """Method of the request. Example: `method: PUT`"""
    url: str
    """Address of the request. Example: `url: "http://127.0.0.1:${PORT}/sleep"`"""
    json_body: Any = Field(default=None, alias="json")
    """Body of the request, sent as JSON; instead of `body`. Example: `json: {level: 1}`"""
    body: str | None = None
    """Body of the request as text; instead of `json`. Example: `body: level=1`"""
    headers: dict[str, SecretStr] = Field(default_factory=dict)
    """Headers of the request. Example: `headers: {X-Level: "1"}`"""
    expect: Statuses = ()
    """Accepted status or list of statuses; by default 200 to 299. Example: `expect: [200, 404]`"""

    def _check_fields(self) -> None:
        if self.body is not None and self.json_body is not None:
            raise refuse("expected json or body, found both")


class HookSection(Section):
    """One hook: a command to run or an HTTP request to make, with its limits."""

    run: CommandLine | None = None
    """Command, as text that is split without a shell, or as a list; instead of `http`.

    Example: `run: sync-models qwen`
    """
    shell: bool = False
    """Run the text of `run` by `/bin/sh`.

    Example: `run: "echo $SWAPCHART_MODEL", shell: true`
    """
    place: Literal["host", "container"] = Field(default="host", alias="in")
    """Where the command of `run` runs: on the `host`, or in the `container` of the model.

    Example: `run: save-state, in: container`
    """
    http: HttpSection | None = None
    """HTTP request to make; instead of `run`.

    Example: `http: {url: "http://127.0.0.1:9000/notify"}`
    """
    timeout: Seconds | None = None
    """Seconds for each attempt; by default `hookTimeout`.

    Example: `run: sync-models, timeout: 60`
    """
    retries: Count = 0
    """Further attempts after a failure. Example: `run: sync-models, retries: 2`"""
    delay: SecondsOrOff = 1.0
    """Seconds between two attempts. Example: `run: sync-models, retries: 2, delay: 5`"""
    on_error: Literal["warn", "ignore", "fail"] = "warn"
    """Effect of a failure: `warn` logs it, `ignore` does not, `fail` ends the start or the
    sleep.

    Example: `run: sync-models, onError: fail`
    """

    def _check_fields(self) -> None:
        if (self.run is None) == (self.http is None):
            both = "both" if self.run is not None else "neither"
            raise refuse(f"expected either run or http, found {both}")
        if self.http is not None and self.place == "container":
            raise refuse("expected run, since `in: container` is set, found http")
        if self.shell and not isinstance(self.run, str):
            raise refuse("expected run to be a text, since shell is true")


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
    """Hooks before the process is started. Example: `beforeStart: sync-models`"""
    after_start: Hooks | None = None
    """Hooks once the process exists, before the first probe.

    Example: `afterStart: logger started`
    """
    after_healthy: Hooks | None = None
    """Hooks after the first successful health check, before the model is ready.

    Example: `afterHealthy: logger healthy`
    """
    after_ready: Hooks | None = None
    """Hooks each time the model becomes ready; requests do not wait for them.

    Example: `afterReady: logger ready`
    """
    before_stop: Hooks | None = None
    """Hooks before `cmdStop` or SIGTERM, on every deliberate stop.

    Example: `beforeStop: logger stopping`
    """
    after_stop: Hooks | None = None
    """Hooks once the whole process tree is gone, also after a crash.

    Example: `afterStop: logger stopped`
    """
    on_failure: Hooks | None = None
    """Hooks after a failed start or a crash, before `afterStop`.

    Example: `onFailure: logger failed`
    """


class SettleSection(Section):
    """Check that the memory of a stopped model is free: by a command, or by nvidia-smi."""

    run: CommandLine | None = None
    """Command that is repeated until it succeeds; instead of `gpuBelow`.

    Example: `run: memory-is-free`
    """
    gpu_below: Annotated[int, Field(ge=1)] | None = None
    """Most MiB in use on each GPU of the model, by nvidia-smi; instead of `run`.

    Example: `gpuBelow: 1000`
    """
    timeout: Seconds = 10.0
    """Most seconds of the check. Example: `gpuBelow: 1000, timeout: 20`"""

    def _check_fields(self) -> None:
        if (self.run is None) == (self.gpu_below is None):
            both = "both" if self.run is not None else "neither"
            raise refuse(f"expected either run or gpuBelow, found {both}")
