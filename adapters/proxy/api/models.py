"""Routes that list models and describe one of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any
from urllib.parse import parse_qs

import msgspec

from ....machine.drawing.diagram_model import Label, picture
from ....machine.drawing.placement import places
from ....runtime import Lifecycle, SwapchartError
from ..body.model_name import quoted_name
from ..context import ProxyContext
from ..query import whole_number
from ..request import Request
from ..responses import ApiError, model_forbidden, unknown_model
from . import model_listing
from .handler import ApiHandler
from .schema.models import (
    Chart,
    ChartLabel,
    ChartPlace,
    ChartState,
    ChartTransition,
    Model,
    ModelList,
    RunningModels,
)
from .schema.transitions import History, TransitionRow

HISTORY_LIMIT = 10_000


@ApiHandler
async def models(proxy: ProxyContext, request: Request) -> ModelList:
    """Return the models that the client's key may use."""
    return ModelList(data=model_listing.models(proxy, request.access))


@ApiHandler
async def model(proxy: ProxyContext, request: Request) -> Model:
    """Return the model that the path names by any of its names."""
    name = request.path_suffix
    try:
        found = model_listing.model(proxy, name, request.access)
    except PermissionError as error:
        raise model_forbidden(name) from error
    if found is None:
        raise unknown_model(request, name, proxy.catalog.closest(name))
    return found


@ApiHandler
async def router_models(proxy: ProxyContext, request: Request) -> ModelList:
    """Return the same as `models`, with the status that llama-server's router reports."""
    return ModelList(data=model_listing.router_models(proxy, request.access))


@ApiHandler
async def running(proxy: ProxyContext, request: Request) -> RunningModels:
    """Return the models whose server runs."""
    rows = proxy.view(request.access).rows(model_listing.running(proxy))
    return RunningModels(running=rows)


@ApiHandler
async def chart(proxy: ProxyContext, request: Request) -> Chart:
    """Return the lifecycle chart of a model and its active states."""
    return _chart_view(proxy.supervisor[local_model(proxy, request)])


@ApiHandler
async def history(proxy: ProxyContext, request: Request) -> History:
    """Return the last transitions of a model, the newest first."""
    name, _, rows = await journal_of_model(proxy, request, default=100, most=HISTORY_LIMIT)
    return History(model=name, data=transition_rows(proxy, request, rows))


async def journal_of_model(
    proxy: ProxyContext, request: Request, *, default: int, most: int, rows_of_each: int = 1
) -> tuple[str, int, list[dict[str, Any]]]:
    """Return the model that the path names, the ``limit`` of the query, and its last rows.

    Args:
        proxy: Has the journal.
        request: The request.
        default: Limit without one in the query.
        most: Largest limit.
        rows_of_each: Rows of the journal for each of what is counted.

    Raises:
        ApiError: 503: there is no journal, or it cannot be read; 404: no such model; 400: another
            limit.
    """
    if proxy.history is None:
        raise ApiError(503, "no history is kept: the store is switched off")
    name = local_model(proxy, request)
    count = limit_of(request, default=default, most=most)
    try:
        return name, count, await proxy.history(name, limit=count * rows_of_each)
    except SwapchartError as error:
        raise ApiError(503, str(error)) from error


def limit_of(request: Request, *, default: int, most: int) -> int:
    """Return the ``limit`` of the query, or *default*; refuses another number than 1 to *most*."""
    limit = parse_qs(request.query.decode("latin-1")).get("limit", [str(default)])[-1]
    count = whole_number(limit, 1, most)
    if count is None:
        raise ApiError(400, f"limit: expected 1 to {most}, got {quoted_name(limit)}")
    return count


def transition_rows(
    proxy: ProxyContext, request: Request, rows: list[dict[str, Any]]
) -> list[TransitionRow]:
    """Return *rows* of the journal as the key of *request* may see them, without API keys."""
    view, redacted = proxy.view(request.access), proxy.admission.keys.redacted_text
    found = [view.row(row) for row in msgspec.convert(rows, list[TransitionRow])]
    for hook in (hook for row in found for hook in row.hooks):
        hook.detail, hook.output = redacted(hook.detail), redacted(view.text(hook.output))
    return found


def local_model(proxy: ProxyContext, request: Request) -> str:
    """Return the id of the model that the path names.

    Raises:
        ApiError: There is no such model, or the client's key may not use it.
    """
    return known_model(proxy, request, request.path_suffix)


def known_model(proxy: ProxyContext, request: Request, name: str) -> str:
    """Return the id of the model called *name*.

    Raises:
        ApiError: There is no such model, or the client's key may not use it.
    """
    found = proxy.catalog.real_name(name)
    if found is None:
        raise unknown_model(request, name, proxy.catalog.closest(name))
    if not proxy.view(request.access).shows(found):
        raise model_forbidden(name)
    return found


def _chart_view(life: Lifecycle) -> Chart:
    """Return the states of the chart of *life* with their places, transitions, active states."""
    document = life.document
    diagram = picture(document)
    found = places(diagram)
    return Chart(
        model=life.spec.name,
        chart=diagram.name,
        configuration=list(life.configuration),
        width=max(place.x + place.width for place in found.values()),
        height=max(place.y + place.height for place in found.values()),
        states=[
            ChartState(
                id=node.id, kind=node.kind, above=list(node.above), initial=node.initial,
                enter=list(node.enter), exit=list(node.exit), inside=_labels(node.inside),
                is_quiet=node.id in document.promises.quiet,
                is_serving=node.id in document.promises.serving,
                place=ChartPlace(**asdict(found[node.id])),
            )
            for node in diagram.nodes.values()
        ],
        transitions=[
            ChartTransition(source=edge.source, target=edge.target, labels=_labels(edge.labels))
            for edge in diagram.edges
        ],
    )  # fmt: skip


def _labels(labels: Iterable[Label]) -> list[ChartLabel]:
    return [
        ChartLabel(
            events=list(label.events), guard=label.guard, actions=list(label.actions),
            origin=label.origin,
        )
        for label in labels
    ]  # fmt: skip
