"""Routes of finished requests: the activity list, histograms and captures."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qs

from ...http1.asgi_types import Send
from ...store.activity import SORTS, ActivityPage, ActivityQuery, ActivityRow
from ...store.database import StoreError
from ..access.visible_models import View
from ..body.model_name import shown_name
from ..context import ProxyContext
from ..formatting import shown_time
from ..request import Request
from ..responses import JSON_TYPE, send_error, send_json, send_parts
from .query import LARGEST, parse_time, whole_number


async def activity(proxy: ProxyContext, request: Request, send: Send) -> None:
    """Tell a page of finished requests."""
    try:
        query = query_of(request.query)
    except ValueError as error:
        await send_error(request, send, 400, str(error))
        return
    if proxy.accounting.activity is None:
        await send_error(request, send, 503, "nothing is written down here")
        return
    view = proxy.view(request.access)
    models = _models_of(view, query.models)
    try:
        if models is None:
            page = ActivityPage(rows=(), total=0)
        else:
            page = await proxy.accounting.activity.page(replace(query, models=models))
    except StoreError as error:
        await send_error(request, send, 503, str(error))
        return
    value = {
        "data": [view.row(_shown(row, row.id in proxy.accounting.captures)) for row in page.rows],
        "page": query.page,
        "limit": query.limit,
        "total": page.total,
        "total_pages": -(-page.total // query.limit),
    }
    if proxy.accounting.activity.problem:
        value["problem"] = proxy.accounting.activity.problem
    await send_json(send, value)


async def stats(proxy: ProxyContext, request: Request, send: Send) -> None:
    """Tell totals and histograms, of one model or of all."""
    if proxy.accounting.activity is None:
        await send_error(request, send, 503, "nothing is written down here")
        return
    model = parse_qs(request.query.decode("latin-1")).get("model", [""])[-1]
    models = _models_of(proxy.view(request.access), (model,) if model else ())
    try:
        # No model is called "": what is asked for then are the totals of nothing.
        found = await proxy.accounting.activity.stats(("",) if models is None else models)
        await send_json(send, found)
    except StoreError as error:
        await send_error(request, send, 503, str(error))


async def capture(proxy: ProxyContext, request: Request, send: Send) -> None:
    """Tell a whole request and its answer."""
    number = whole_number(request.path_suffix, 0, LARGEST)
    if number is None:
        await send_error(
            request, send, 400, f"expected a number, got {shown_name(request.path_suffix)}"
        )
        return
    found = proxy.accounting.captures.get(number)
    if found is None or not proxy.view(request.access).shows(found.model):
        await send_error(request, send, 404, f"there is no capture {number}, or no longer")
        return
    parts = await proxy.turns.run(found.steps(proxy.admission.ring.redacted))
    await send_parts(send, parts, JSON_TYPE)


def _models_of(view: View, wanted: tuple[str, ...]) -> tuple[str, ...] | None:
    """Return which models' rows to look for, none meaning all; None: no row may be seen."""
    if view.is_whole:
        return wanted
    return tuple(name for name in wanted or view.ids if view.shows(name)) or None


def query_of(text: bytes) -> ActivityQuery:
    """Read the parameters of a page.

    Raises:
        ValueError: One of them makes no sense; the text says which.
    """
    given = parse_qs(text.decode("latin-1"), keep_blank_values=True)

    def last(name: str, default: str = "") -> str:
        return given.get(name, [default])[-1]

    def number(name: str, default: int | None, low: int, high: int) -> int | None:
        value = last(name)
        if not value:
            return default
        found = whole_number(value, low, high)
        if found is None:
            raise ValueError(f"{name}: expected {low} to {high}, got {shown_name(value)}")
        return found

    def moment(name: str) -> int | None:
        value = last(name)
        if not value:
            return None
        try:
            return round(parse_time(value) * 1000)
        except (ValueError, OverflowError) as error:
            example = "2026-01-31T12:00:00Z"
            raise ValueError(
                f"{name}: expected a time such as {example}, got {shown_name(value)}"
            ) from error

    sort, order = last("sort") or "id", last("order") or "desc"
    if sort not in SORTS:
        raise ValueError(f"sort: expected one of {', '.join(SORTS)}, got {sort!r}")
    if order not in ("asc", "desc"):
        raise ValueError(f"order: expected asc or desc, got {order!r}")
    query = ActivityQuery(
        models=tuple(model for model in given.get("model", []) if model),
        start=moment("start"),
        end=moment("end"),
        min_id=number("min_id", None, 1, LARGEST),
        max_id=number("max_id", None, 1, LARGEST),
        limit=number("limit", 25, 1, 999) or 25,
        page=number("page", 1, 1, 10**9) or 1,
        sort=sort,
        order="asc" if order == "asc" else "desc",
    )
    _check_order("start", query.start, "end", query.end)
    _check_order("min_id", query.min_id, "max_id", query.max_id)
    return query


def _check_order(first: str, low: int | None, second: str, high: int | None) -> None:
    if low is not None and high is not None and low > high:
        raise ValueError(f"expected {first} not after {second}")


def _shown(row: ActivityRow, has_capture: bool) -> dict[str, Any]:
    found: dict[str, Any] = {
        "id": row.id,
        "timestamp": shown_time(row.time / 1000),
        "model": row.model,
        "req_path": row.req_path,
        "resp_content_type": row.resp_content_type,
        "resp_status_code": row.resp_status_code,
        "tokens": {
            "cache_tokens": row.cached,
            "draft_tokens": row.drafted,
            "draft_acc_tokens": row.accepted,
            "input_tokens": row.prompt,
            "output_tokens": row.generated,
            "prompt_per_second": row.prompt_speed,
            "tokens_per_second": row.gen_speed,
        },
        "duration_ms": row.duration,
        "wait_ms": row.waited,
        "first_byte_ms": row.first_byte,
        "has_capture": has_capture,
    }
    if row.error_msg:
        found["error_msg"] = row.error_msg
    metadata = json.loads(row.metadata)
    if metadata:
        found["metadata"] = metadata
    return found
