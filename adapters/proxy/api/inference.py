"""Inference requests: find the model that a JSON body, a form or a query names, and forward.

Each handler makes the checks of ``forwarding.checks`` that are left: size of the body, model name,
model, models of the API key, filters. It then makes a `Forwarding` and runs it.
"""

from __future__ import annotations

from time import perf_counter

from ...http1.asgi_types import Send
from ..accounting.request_record import RequestRecord, recording_headers
from ..body.errors import BadBodyError, BodyTooLargeError, UnknownCodingError
from ..body.json_edit import EditError
from ..body.memory_budget import BodyBudgetError
from ..body.model_name import (
    NAME_BYTES,
    asks_for_stream,
    model_of,
    model_of_query,
    model_steps,
    query_steps,
    quoted_name,
    rename_steps,
    renamed_query,
)
from ..body.multipart import MultipartScanner, boundary_of, is_form
from ..body.multipart_stream import multipart_with_model
from ..body.spool import Spool
from ..context import ProxyContext
from ..forwarding.encoded_body import BYTE_ORDER_MARK, coding_of, unpacked
from ..forwarding.forwarding import Forwarding
from ..models.catalog import Target
from ..models.resolver import NoTargetError, ResolvedModel, UnknownModelError
from ..models.tags import LISTENER, known_name
from ..request import Request, path_of, target_of
from ..responses import send_error, send_model_forbidden, send_unknown_model, unknown_model

_ELSEWHERE = "a POST to any other path goes to the model that its body names"
_AT_ONCE_BYTES = 1 << 16  # a larger body is scanned in steps, so as not to block the event loop
_SHORT_BYTES = 1 << 20  # msgspec decodes as much in at most 1.5 ms
_SNIFFED_BYTES = 1 << 16  # of a body, to distinguish JSON from a form
#: JSON is recognized whatever its Content-Type: ``curl -d`` says urlencoded by default.
_OBJECT, _ARRAY = b"{", b"["


async def post(proxy: ProxyContext, request: Request, send: Send) -> None:
    """Serve a route whose body names the model."""
    assert request.cached_headers is not None, "set by ProxyApp"
    kind = request.cached_headers.content_type
    try:
        if kind is not None and is_form(kind):
            await _form(proxy, request, send, boundary_of(kind))
        else:
            await _complete_body(proxy, request, send)
    except UnknownCodingError as unknown:
        headers = [(b"accept-encoding", b"gzip")]  # RFC 9110 section 12.5.3
        await send_error(request, send, 415, str(unknown), code="unknown_encoding", headers=headers)
    except BodyTooLargeError as too_large:  # mypyc gives all uses of one name the same type
        await send_error(request, send, 413, str(too_large), headers=[(b"connection", b"close")])
    except BodyBudgetError as no_room:
        await send_error(
            request, send, 503, str(no_room), code="no_room_for_body",
            retry_after_s=no_room.wait_s,
            headers=[(b"connection", b"close")],
        )  # fmt: skip
    except BadBodyError as error:
        await _reject_unnamed(request, send, str(error))


async def get(proxy: ProxyContext, request: Request, send: Send) -> None:
    """Serve a route whose query names the model."""
    try:
        wanted = model_of_query(request.query)
    except BadBodyError as error:
        await send_error(request, send, 400, str(error))
        return
    resolved = await find_model(proxy, request, send, wanted)
    if resolved is None:
        return
    query, model = request.query, resolved.target.sent_model
    if model != wanted:
        query = renamed_query(query, model)
    target = request.path_bytes + b"?" + query
    forwarding = Forwarding(proxy, request, resolved, path_of(request), target)
    forwarding.record.is_stream = asks_for_stream(request.query)
    await forwarding.run(send)


async def find_model(
    proxy: ProxyContext, request: Request, send: Send, wanted: str, body: bytes | None = None
) -> ResolvedModel | None:
    """Return the model that *wanted* names; None means an error response was sent.

    Args:
        proxy: What all requests share.
        request: The request.
        send: Sends ASGI messages.
        wanted: Name of a model.
        body: Body of the request, if it was read completely.
    """
    if not wanted:
        await _reject_unnamed(request, send, _missing_name(request))
        return None
    if len(wanted) > NAME_BYTES:
        message = f"`model` is longer than {NAME_BYTES} bytes: {quoted_name(wanted)}"
        await _reject_unnamed(request, send, message)
        return None
    try:
        resolved = proxy.resolver.resolve(wanted)
    except UnknownModelError as error:
        if LISTENER in (request.scope.get("extensions") or ()):
            other = known_name(proxy.catalog, proxy.profiles, wanted)
            if other != wanted:
                return await find_model(proxy, request, send, other, body)
        await _reject_unknown(proxy, request, send, error, body)
        return None
    except NoTargetError as no_target:  # another name: compiled, one name has one type
        text = str(no_target)
        await send_error(request, send, 503, text, code="no_target", retry_after_s=5.0)
        return None
    target = resolved.target
    if not request.access.allows_model(wanted, target.requested_name, target.id):
        if resolved.reservation is not None:
            resolved.reservation.release()
        await send_model_forbidden(request, send, wanted)
        return None
    return resolved


def _missing_name(request: Request) -> str:
    places = "in the body, or in the query" if request.method == "POST" else "in the query"
    return f"no model id could be identified: `model` is missing {places} (`?model=NAME`)"


async def _reject_unnamed(request: Request, send: Send, reason: str) -> None:
    """Respond with 400 to a request that names no model, with 404 where no route has its path."""
    assert request.route is not None, "set by ProxyApp"
    if request.route.is_fallback:
        message = f"no such route: {request.path}; {_ELSEWHERE}: {reason}"
        await send_error(request, send, 404, message)
    else:
        await send_error(request, send, 400, reason)


async def _reject_unknown(
    proxy: ProxyContext, request: Request, send: Send, error: UnknownModelError, body: bytes | None
) -> None:
    """Respond with 404, and record the request unless a profile disables the name."""
    name = error.name
    closest = proxy.catalog.closest(name)
    assert request.route is not None, "set by ProxyApp"
    if request.route.is_fallback:
        unknown = unknown_model(request, name, closest)
        message = f"no such route: {request.path}; {_ELSEWHERE}: {unknown.message}"
        await send_error(request, send, 404, message, code=unknown.code)
        return
    if request.method != "POST" or name in proxy.profiles.pins:
        await send_unknown_model(request, send, name, closest)
        return
    record = RequestRecord(request, name, path_of(request), perf_counter())
    record.status, record.code, record.error = 404, "model_not_found", str(error)
    record.is_metered, record.body = True, body
    try:
        await send_unknown_model(request, recording_headers(record, send), name, closest)
    finally:
        record.ended = perf_counter()
        proxy.accounting.recorder.record_unknown(record)


# ---- bodies that are read completely
async def _complete_body(proxy: ProxyContext, request: Request, send: Send) -> None:
    body = await request.body(proxy.options.json_limit_bytes)
    is_unpacked = False
    if body[:1] != _OBJECT and (start := body[:_SNIFFED_BYTES].lstrip()[:1]) != _OBJECT:
        kind = (request.header(b"content-type") or b"").lower()
        if body and coding_of(request) and (b"json" in kind or not model_of_query(request.query)):
            body, is_unpacked = await unpacked(request, body, proxy.options.json_limit_bytes), True
        body = body.removeprefix(BYTE_ORDER_MARK)
        start = body[:_SNIFFED_BYTES].lstrip()[:1]
        if start == _OBJECT or is_unpacked:
            pass  # read below, which reports what is no object
        elif start != _ARRAY and b"application/x-www-form-urlencoded" in kind:
            await _urlencoded(proxy, request, send, body)
            return
        elif not start or (
            not (b"json" in kind and start != _ARRAY) and model_of_query(request.query)
        ):
            await _named_by_query(proxy, request, send, body)
            return
    if len(body) > _AT_ONCE_BYTES:
        request.watch()  # cancel the scan if the client disconnects
        is_short = len(body) <= _SHORT_BYTES
        wanted, is_stream = await proxy.turns.run(model_steps(body), is_short=is_short)
    else:
        wanted, is_stream = model_of(body)
    named = "" if wanted or not request.query else model_of_query(request.query)
    resolved = await find_model(proxy, request, send, wanted or named, body)
    if resolved is None:
        return
    forwarding = Forwarding(proxy, request, resolved, path_of(request), target_of(request))
    target, record = resolved.target, forwarding.record
    if not wanted:
        forwarding.target = _renamed_target(request, resolved, named)
        wanted = target.sent_model  # the body names no model, which needs no change
    if target.edits or target.sent_model != wanted:
        edited = await edited_body(proxy, request, send, resolved, wanted, body)
        if edited is None:
            return
        body = edited
    forwarding.body = record.body = body
    if is_unpacked:
        forwarding.length = len(body)  # so that the cached headers are not used
    record.is_metered, record.is_stream = True, is_stream
    await forwarding.run(send)


async def edited_body(
    proxy: ProxyContext,
    request: Request,
    send: Send,
    resolved: ResolvedModel,
    wanted: str,
    body: bytes,
) -> bytes | None:
    """Return *body* after the model's filters; None means an error response was sent."""
    target: Target = resolved.target
    model = target.sent_model if target.sent_model != wanted else None
    try:
        if len(body) <= _AT_ONCE_BYTES:
            return target.edits.apply(body, model=model)
        return await proxy.turns.run(target.edits.steps(body, model=model))
    except BaseException as error:
        if resolved.reservation is not None:
            resolved.reservation.release()
        if not isinstance(error, EditError):
            raise
        await send_error(request, send, 400, f"the filters of {target.id}: {error}")
        return None


async def _urlencoded(proxy: ProxyContext, request: Request, send: Send, body: bytes) -> None:
    request.watch()
    wanted = await proxy.turns.run(query_steps(body))
    if not wanted:
        await _named_by_query(proxy, request, send, body)
        return
    resolved = await find_model(proxy, request, send, wanted, body)
    if resolved is None or await _lacks_filters(request, send, resolved):
        return
    if resolved.target.sent_model != wanted:
        body = await _renamed(proxy, resolved, body)
    forwarding = Forwarding(proxy, request, resolved, path_of(request), target_of(request), body)
    forwarding.record.is_metered, forwarding.record.body = True, body
    await forwarding.run(send)


async def _named_by_query(proxy: ProxyContext, request: Request, send: Send, body: bytes) -> None:
    """Forward a body that names no model and is no JSON, to the model that the query names."""
    wanted = model_of_query(request.query)
    resolved = await find_model(proxy, request, send, wanted, body)
    if resolved is None or await _lacks_filters(request, send, resolved):
        return
    target = _renamed_target(request, resolved, wanted)
    forwarding = Forwarding(proxy, request, resolved, path_of(request), target, body)
    forwarding.record.is_metered, forwarding.record.body = True, body
    await forwarding.run(send)


async def _lacks_filters(request: Request, send: Send, resolved: ResolvedModel) -> bool:
    """Return True, after an error response, if the filters of the model would be bypassed."""
    target = resolved.target
    if not target.edits:
        return False
    if resolved.reservation is not None:
        resolved.reservation.release()
    message = f"the filters of {target.id} need a body of type application/json"
    await send_error(request, send, 415, message)
    return True


def _renamed_target(request: Request, resolved: ResolvedModel, wanted: str) -> bytes:
    """Return path and query for the model's server, which knows *wanted* by another name."""
    target, model = target_of(request), resolved.target.sent_model
    if model == wanted:
        return target
    path, _, query = target.partition(b"?")
    return path + b"?" + renamed_query(query, model)


async def _renamed(proxy: ProxyContext, resolved: ResolvedModel, body: bytes) -> bytes:
    try:
        return await proxy.turns.run(rename_steps(body, resolved.target.sent_model))
    except BaseException:
        if resolved.reservation is not None:
            resolved.reservation.release()
        raise


# ---- forms, which are streamed
async def _form(proxy: ProxyContext, request: Request, send: Send, boundary: bytes) -> None:
    options = proxy.options
    declared = request.declared_length()
    if declared is not None and declared > options.form_limit_bytes:
        raise BodyTooLargeError(options.form_limit_bytes)
    scanner, spool = MultipartScanner(boundary), Spool(options.form_head_bytes)
    pieces = request.pieces(options.form_limit_bytes)
    try:
        async for piece in pieces:
            scanner.feed(piece)
            await spool.write(piece)
            if scanner.model is not None:
                break
        else:
            scanner.finish()
        found = scanner.model
        wanted = model_of_query(request.query) if found is None else found.value
        resolved = await find_model(proxy, request, send, wanted)
        if resolved is None:
            return
        forwarding = Forwarding(proxy, request, resolved, path_of(request), target_of(request))
        forwarding.record.is_metered = True
        if found is None:
            forwarding.target = _renamed_target(request, resolved, wanted)
            forwarding.body = spool.pieces(0, spool.size)
            await forwarding.run(send)
            return
        model = resolved.target.sent_model
        value = found.value.encode() if model == found.value else model.encode()
        if declared is not None:
            forwarding.length = declared + len(value) - (found.end - found.start)
        forwarding.body = multipart_with_model(scanner, spool, pieces, found, value)
        await forwarding.run(send)
    finally:
        spool.close()
