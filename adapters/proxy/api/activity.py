"""Routes for finished requests: the activity, its totals, and captures."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from urllib.parse import parse_qs

import msgspec

from ...http1.asgi_types import Send
from ...store import StoreError
from ...store.activity import (
    SORTS,
    ActivityPage,
    ActivityQuery,
    ActivityRow,
    ActivityStore,
    WaitRow,
)
from ..access.visible_models import View
from ..body.model_name import quoted_name
from ..context import ProxyContext
from ..formatting import rfc3339
from ..query import LARGEST, parse_time, whole_number
from ..request import Request
from ..responses import JSON_TYPE, ApiError, send_error, send_parts
from .handler import ApiHandler
from .schema import requests as schema

_LONGEST_TEXT = 200  # characters of a text to look for


@ApiHandler
async def activity(proxy: ProxyContext, request: Request) -> schema.Activity:
    """Return a page of finished requests."""
    try:
        query = query_of(request.query)
    except ValueError as error:
        raise ApiError(400, str(error)) from error
    store = _store(proxy)
    view = proxy.view(request.access)
    models = _visible_models(view, query.models)
    try:
        if models is None:
            page = ActivityPage(rows=(), total=0)
        else:
            # Errors and ids may name models that the key may not see, and whose names it may guess.
            found = replace(query, models=models, has_whole_text=view.is_whole)
            page = await store.page(found)
    except StoreError as error:
        raise ApiError(503, str(error)) from error
    captures = proxy.accounting.captures
    return schema.Activity(
        data=[
            finished_request(row, page.waits.get(row.id), view, has_capture=row.id in captures)
            for row in page.rows
        ],
        page=query.page,
        limit=query.limit,
        total=page.total,
        total_pages=-(-page.total // query.limit),
        problem=store.problem or msgspec.UNSET,
    )


@ApiHandler
async def stats(proxy: ProxyContext, request: Request) -> schema.Statistics:
    """Return totals and histograms, of one model or of all."""
    store = _store(proxy)
    model = parse_qs(request.query.decode("latin-1")).get("model", [""])[-1]
    models = _visible_models(proxy.view(request.access), (model,) if model else ())
    try:
        # No model is called "", so that its totals are those of no request.
        found = await store.stats(("",) if models is None else models)
    except StoreError as error:
        raise ApiError(503, str(error)) from error
    return msgspec.convert(found, schema.Statistics)


def _store(proxy: ProxyContext) -> ActivityStore:
    if proxy.accounting.activity is None:
        raise ApiError(503, "no activity is recorded: the store is switched off")
    return proxy.accounting.activity


async def capture(proxy: ProxyContext, request: Request, send: Send) -> None:
    """Send a request with its response; the bodies are encoded in steps and never joined."""
    number = whole_number(request.path_suffix, 0, LARGEST)
    if number is None:
        await send_error(
            request, send, 400, f"expected a number, got {quoted_name(request.path_suffix)}"
        )
        return
    found = proxy.accounting.captures.get(number)
    if found is None or not proxy.view(request.access).shows(found.model):
        await send_error(request, send, 404, f"there is no capture {number}, or no longer")
        return
    parts = await proxy.turns.run(found.steps(proxy.admission.keys.redacted))
    await send_parts(send, parts, JSON_TYPE)


def _visible_models(view: View, names: tuple[str, ...]) -> tuple[str, ...] | None:
    """Return the models whose rows are shown; empty means all, None means no row."""
    if view.is_whole:
        return names
    return tuple(name for name in names or view.ids if view.shows(name)) or None


def query_of(text: bytes) -> ActivityQuery:
    """Parse the query of a page.

    Raises:
        ValueError: A parameter is invalid; the message names it.
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
            raise ValueError(f"{name}: expected {low} to {high}, got {quoted_name(value)}")
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
                f"{name}: expected a time such as {example}, got {quoted_name(value)}"
            ) from error

    sort, order = last("sort") or "id", last("order") or "desc"
    if sort not in SORTS:
        raise ValueError(f"sort: expected one of {', '.join(SORTS)}, got {sort!r}")
    if order not in ("asc", "desc"):
        raise ValueError(f"order: expected asc or desc, got {order!r}")
    query = ActivityQuery(
        models=tuple(model for model in given.get("model", []) if model),
        statuses=tuple(_statuses(text) for text in given.get("status", []) if text),
        text=_text(last("text")),
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


def _statuses(text: str) -> tuple[int, int]:
    """Return the range of statuses that *text* names: ``404``, ``4xx`` or ``400-498``.

    Raises:
        ValueError: It names none.
    """
    low, _, high = text.partition("-")
    if re.fullmatch(r"[1-5]xx", text):
        low, high = f"{text[0]}00", f"{text[0]}99"
    first, last = whole_number(low, 100, 599), whole_number(high or low, 100, 599)
    if first is None or last is None or last < first:
        expected = "expected one such as 404, 4xx or 400-498"
        raise ValueError(f"status: {expected}, got {quoted_name(text)}")
    return first, last


def _text(given: str) -> str:
    """Return the text to look for.

    Raises:
        ValueError: It is too long.
    """
    text = given.strip()
    if len(text) > _LONGEST_TEXT:
        raise ValueError(f"text: expected at most {_LONGEST_TEXT} characters")
    return text


def _check_order(first: str, low: int | None, second: str, high: int | None) -> None:
    if low is not None and high is not None and low > high:
        raise ValueError(f"expected {first} not after {second}")


def finished_request(
    row: ActivityRow, wait: WaitRow | None, view: View, *, has_capture: bool
) -> schema.FinishedRequest:
    """Return one finished request, and how it waited, as *view* may see it."""
    found = schema.FinishedRequest(
        id=row.id,
        timestamp=rfc3339(row.time / 1000),
        model=row.model,
        req_path=row.req_path,
        resp_content_type=row.resp_content_type,
        resp_status_code=row.resp_status_code,
        tokens=schema.Tokens(
            cache_tokens=row.cached,
            draft_tokens=row.drafted,
            draft_acc_tokens=row.accepted,
            input_tokens=row.prompt,
            output_tokens=row.generated,
            prompt_per_second=row.prompt_speed,
            tokens_per_second=row.gen_speed,
        ),
        duration_ms=row.duration,
        wait_ms=row.waited,
        first_byte_ms=row.first_byte,
        has_capture=has_capture,
        error_msg=row.error_msg or msgspec.UNSET,
        metadata=json.loads(row.metadata) or msgspec.UNSET,
        request_id=row.request_id or msgspec.UNSET,
    )
    if wait is not None:
        found.swap_id = wait.swap_id or msgspec.UNSET
        found.wait = schema.RequestWait(
            queue_ms=wait.queue, evict_ms=wait.evict, start_ms=wait.start, hooks_ms=wait.hooks,
            resident=view.visible(json.loads(wait.resident)),
            evicted=view.visible(json.loads(wait.evicted)),
            reasons=[
                schema.WaitReason(after_ms=after_ms, why=why)
                for after_ms, why in json.loads(wait.reasons)
            ],
        )  # fmt: skip
    return view.row(found)
