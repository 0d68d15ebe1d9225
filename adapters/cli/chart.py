"""Commands for charts: export them, draw them, check their promises."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...machine import (
    ChartError,
    Document,
    StartActivity,
    StartTimer,
    SwapchartError,
    View,
    lifecycle,
    render,
)
from ...machine.format.durations import seconds_of
from ...machine.format.json_schema import json_schema
from ...machine.format.overlay import merge
from ...machine.format.parse import from_mapping, load_yaml
from ...machine.format.python_types import python_types
from ...machine.interchange.class_reader import Mode
from ...runtime import ServiceSpec
from .. import pictures
from . import chart_check
from .chart_source import load_chart, read_file
from .view_options import view_of

#: Formats that can highlight the current state of a model.
_PICTURES = ("mermaid", "plantuml", "dot", "svg", "png")


def export(options: argparse.Namespace) -> int:
    """Write a chart in the requested format."""
    try:
        if options.model is not None and not (options.live or options.config):
            raise ChartError("--model", "expected --live or --config beside it")
        document = chosen(options)
        view = view_of(document, options)
        if options.live:
            view = replace(view, active=_active(options))
        if options.split is not None:
            return _split(document, options, view)
        data = rendered(document, options.format, view=view, **_foreign(options))
        if options.output is not None:
            options.output.write_bytes(data)
    except (SwapchartError, OSError) as error:
        return chart_check.fail(error)
    if options.output is None:
        sys.stdout.buffer.write(data)
        sys.stdout.flush()
    return 0


def prove(options: argparse.Namespace) -> int:
    """Check the promises of a chart."""
    return chart_check.prove(options, lambda: chosen(options))


def schema(options: argparse.Namespace) -> int:
    """Print the JSON Schema of chart documents."""
    del options
    print(json.dumps(json_schema(), indent=2))
    return 0


def types(options: argparse.Namespace) -> int:
    """Write the names of a chart as Python types."""
    try:
        text = python_types(load_chart(options.chart, mode="draw"))
        if options.output is None:
            sys.stdout.write(text)
        else:
            options.output.write_text(text)
    except (SwapchartError, OSError) as error:
        return chart_check.fail(error)
    return 0


def chosen(options: argparse.Namespace) -> Document:
    """Return the chart that the options select: the shipped one, a file or a class.

    Raises:
        SwapchartError: It is not a chart.
        OSError: A file cannot be read.
    """
    document = lifecycle()
    if options.chart is not None:
        mode: Mode = "check" if options.run == "chart-check" else "draw"
        catalog = None if options.catalog is None else _mapping(options.catalog)
        document = load_chart(options.chart, mode, catalog)
    if options.overlay is not None:
        document = merge(document, _mapping(options.overlay))
    if getattr(options, "config", None) is not None:
        document = _of_model(document, options.config, options.model)
    return document


def _of_model(document: Document, path: Path, name: str | None) -> Document:
    """Return *document* with the chart changes, timers and hooks of one model filled in."""
    from ..app.chart_setup import chart
    from ..app.service_setup import service_spec
    from ..config import load_config

    if name is None:
        raise ChartError("--config", "expected --model MODEL beside it")
    config = load_config([path])
    real = config.real_name(name)
    if real is None:
        known = ", ".join(config.models)
        raise ChartError("--model", f"{path} has no model {name!r}; it has: {known}")
    document = chart(config) or document
    return filled_in(document, service_spec(config.models[real]))


def filled_in(document: Document, spec: ServiceSpec) -> Document:
    """Return *document* with notes on what its actions mean for *spec*."""
    notes: dict[str, str] = {}
    for name, action in document.actions.items():
        timers = [effect.timer for effect in action.effects if isinstance(effect, StartTimer)]
        seconds = [_seconds(spec, timer) for timer in timers]
        points = [e.point for e in action.effects if isinstance(e, StartActivity) and e.point]
        hooks = [str(hook.action) for point in points for hook in spec.hooks.get(point, ())]
        if len(timers) > 1:
            seconds = [f"{timer} {text}" for timer, text in zip(timers, seconds, strict=True)]
        if timers or points:
            notes[name] = ", ".join(seconds + hooks) or "no hooks"
    return from_mapping({**document.source, "name": spec.name, "notes": notes})


def _seconds(spec: ServiceSpec, timer: str) -> str:
    if timer == "idle_limit" and spec.pinned:
        return "pinned"
    seconds = getattr(spec.timings, timer, spec.parameters.get(f"{timer}_s"))
    if timer == "backoff":
        return f"{spec.timings.backoff:g} to {spec.timings.backoff_max:g} s"
    return "off" if seconds is None else f"{float(seconds):g} s"


def _mapping(path: Path) -> dict[str, Any]:
    text = read_file(path)
    try:
        value = load_yaml(text)
    except ChartError as error:
        raise error.at(str(path), error.position) from error
    if isinstance(value, dict) and set(value) == {"lifecycle"}:
        value = value["lifecycle"]  # a configuration with that section is accepted as well
    if not isinstance(value, dict):
        raise ChartError(str(path), f"expected a mapping, found {type(value).__name__}")
    return value


def _active(options: argparse.Namespace) -> tuple[str, ...]:
    """Return the active states of --model in the proxy at --live.

    Raises:
        SwapchartError: The model is unknown, or the format cannot show states.
    """
    from .remote.client import ApiError, Proxy, model_path

    if options.model is None:
        raise ChartError("--live", "expected --model MODEL beside it")
    if options.format not in _PICTURES:
        expected = ", ".join(_PICTURES)
        raise ChartError("--live", f"expected a picture ({expected}), got {options.format}")
    path = model_path(options.model, after="/explain")
    try:
        found = Proxy(options.live, options.api_key).get(path, "configuration")
    except ApiError as error:
        raise SwapchartError(str(error)) from error
    return tuple(found["configuration"])


def _foreign(options: argparse.Namespace) -> dict[str, Any]:
    """Return the options of `render` for the formats of other engines.

    Raises:
        ChartError: A timer has no valid duration.
    """
    timers: dict[str, float] = {}
    for text in options.timer:
        name, _, duration = text.partition("=")
        seconds = seconds_of(duration)
        if seconds is None or not name:
            raise ChartError("--timer", f"expected NAME=DURATION, such as a=2d, got {text!r}")
        timers[name] = seconds
    return {"datamodel": options.datamodel, "timers": timers}


def rendered(
    document: Document, format_: str, *, view: View | None = None, **foreign: Any
) -> bytes:  # fmt: skip
    """Return *document* in *format_*.

    Args:
        document: The chart.
        format_: A format of `render`, or svg or png.
        view: What a picture shows; None means all of the chart.
        foreign: Options of `render` for the formats of other engines.

    Raises:
        SwapchartError: Graphviz is needed and missing, or the format cannot express the chart.
    """
    if format_ in pictures.FORMATS:
        return pictures.draw(document, format_, view)
    return render(document, format_, view=view, **foreign).encode()


def _split(document: Document, options: argparse.Namespace, view: View) -> int:
    """Write an overview, and a picture of the inside of each composite state, into a folder."""
    if options.format not in pictures.FORMATS:
        raise ChartError("--split", f"expected --format svg or png, got {options.format}")
    options.split.mkdir(parents=True, exist_ok=True)
    for name, data in pictures.draw_all(document, options.format, view).items():
        (options.split / name).write_bytes(data)
    return 0


COMMANDS: Mapping[str, Callable[[argparse.Namespace], int]] = {
    "chart-export": export,
    "chart-check": prove,
    "chart-schema": schema,
    "chart-types": types,
}
