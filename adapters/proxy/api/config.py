"""Routes for the configuration: the one in force, what a reload would change, and the reload."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from ....runtime import SwapchartError
from ..context import ConfigControl, ProxyContext
from ..request import Request
from ..responses import ApiError
from .handler import ApiHandler
from .models import local_model
from .schema.config import ConfigFacts, ModelSettings, ReloadPlan, ReloadReport, Setting

_BODY_LIMIT = 1 << 16  # bytes


@ApiHandler
async def show(proxy: ProxyContext, request: Request) -> ConfigFacts:
    """Return where the configuration came from, and the result of the last reload."""
    return msgspec.convert(_config(proxy).facts(), ConfigFacts)


@ApiHandler
async def model_settings(proxy: ProxyContext, request: Request) -> ModelSettings:
    """Return the settings of a model in force, with the file and line of each; without API keys."""
    name = local_model(proxy, request)
    settings = msgspec.convert(_config(proxy).settings(name), list[Setting])
    for setting in settings:
        setting.value = proxy.admission.keys.redacted_text(setting.value)
    return ModelSettings(model=name, settings=settings)


@ApiHandler
async def plan(proxy: ProxyContext, request: Request) -> ReloadPlan:
    """Read the configuration again and return what a reload would change; change nothing."""
    await request.body(_BODY_LIMIT)
    config = _config(proxy)
    try:
        value = await config.plan()
    except SwapchartError as error:
        raise _invalid(config.problems(error)) from error
    return msgspec.convert(value, ReloadPlan)


@ApiHandler
async def reload(proxy: ProxyContext, request: Request) -> ReloadReport:
    """Read the configuration again and apply it; respond when that is done.

    If a reload is under way, another one follows it: it reads what was saved before this request.
    """
    await request.body(_BODY_LIMIT)
    try:
        report = await _config(proxy).reload("asked by API")
    except SwapchartError as error:
        raise ApiError(503, str(error), code="shutting_down") from error
    if not report["ok"]:
        raise _invalid(report["problems"])
    return msgspec.convert(report, ReloadReport)


def _config(proxy: ProxyContext) -> ConfigControl:
    if proxy.config is None:
        raise ApiError(503, "there is no configuration to read again")
    return proxy.config


def _invalid(problems: Sequence[dict[str, Any]]) -> ApiError:
    errors = [problem for problem in problems if problem["severity"] == "error"]
    count = f"{len(errors)} error{'' if len(errors) == 1 else 's'}"
    message = f"nothing was changed: {count}: {'; '.join(p['text'] for p in errors)}"
    details = {"problems": list(problems)}
    return ApiError(400, message, code="config_invalid", details=details)
