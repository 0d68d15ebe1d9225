"""Routes that ask a model: chat, generate, embed and embeddings.

A request without a prompt loads its model, or with a ``keep_alive`` of 0 unloads it.
"""

from __future__ import annotations

from functools import partial
from time import perf_counter
from typing import Any, Literal

import msgspec

from .....runtime import RequestError
from ....http1.asgi_types import Send
from ...access.header_cache import CachedHeaders
from ...access.keep_alive import NAME as KEEP_ALIVE
from ...accounting.request_record import RequestRecord
from ...context import ProxyContext
from ...forwarding.failures import error_text, rejection_fields
from ...forwarding.forwarding import Forwarding, ResponseAbortedError
from ...forwarding.model_use import release_kept
from ...forwarding.repeated_request import starting_once
from ...models.catalog import LocalModel, PeerModel
from ...models.resolver import ResolvedModel
from ...models.tags import known_name
from ...request import Request
from ...responses import ApiError, send_api_error, send_error, send_json
from ..inference import edited_body, find_model
from . import answers, bodies, translation
from .answers import Answer, Json, Times
from .bodies import ChatBody, EmbedBody, EmbeddingsBody, GenerateBody, ModelBody
from .responder import Responder
from .translation import LOCAL_ONLY, Translated

#: Headers of the client's request that are about its own body and response.
_OF_CLIENT = frozenset(
    {
        b"accept", b"accept-encoding", b"content-encoding", b"content-length", b"content-type",
        b"transfer-encoding", KEEP_ALIVE,
    }
)  # fmt: skip
_Kind = Literal["chat", "generate"]


async def chat(proxy: ProxyContext, request: Request, send: Send) -> None:
    """Serve ``/api/chat``."""
    body = await bodies.read(proxy, request, send, ChatBody)
    if body is None:
        return
    if not body.messages:
        await _load(proxy, request, send, body, "chat")
        return
    await _generate(proxy, request, send, body, "chat")


async def generate(proxy: ProxyContext, request: Request, send: Send) -> None:
    """Serve ``/api/generate``."""
    body = await bodies.read(proxy, request, send, GenerateBody)
    if body is None:
        return
    if not (body.prompt or body.images or body.suffix):
        await _load(proxy, request, send, body, "generate")
        return
    await _generate(proxy, request, send, body, "generate")


async def embed(proxy: ProxyContext, request: Request, send: Send) -> None:
    """Serve ``/api/embed``."""
    body = await bodies.read(proxy, request, send, EmbedBody)
    if body is None:
        return
    if not body.input:
        empty: Json = {"model": body.model or body.name, "embeddings": []}
        await _load(proxy, request, send, body, "embed", empty)
        return
    whole = partial(answers.embedded, body.model or body.name or "")
    await _forward(proxy, request, send, body, partial(translation.embed, body), whole)


async def embeddings(proxy: ProxyContext, request: Request, send: Send) -> None:
    """Serve ``/api/embeddings``, the older form of ``/api/embed``."""
    body = await bodies.read(proxy, request, send, EmbeddingsBody)
    if body is None:
        return
    if not body.prompt:
        await _load(proxy, request, send, body, "embeddings", {"embedding": []})
        return

    def whole(value: Any, times: Times) -> Json:
        return answers.embedding(value)

    await _forward(proxy, request, send, body, partial(translation.embeddings, body), whole)


async def _generate(
    proxy: ProxyContext, request: Request, send: Send, body: ChatBody | GenerateBody, kind: _Kind
) -> None:
    name = body.model or body.name or ""
    answer = Answer(kind, name, shows_thinking=body.think is not False)
    if isinstance(body, ChatBody):
        translate = partial(translation.chat, body)
    else:
        translate = partial(translation.generate, body)
    await _forward(proxy, request, send, body, translate, answer.whole, answer)


# ---- forwarding
async def _forward(
    proxy: ProxyContext, request: Request, send: Send, body: ModelBody, translate: Any, whole: Any,
    answer: Answer | None = None,
) -> None:  # fmt: skip
    """Translate a request, send it to its model, and translate the response."""
    try:
        name, keep_s = bodies.name_in(body), bodies.idle_limit_in(body)
        translated: Translated = translate()
    except ApiError as error:
        await send_api_error(request, send, error)
        return
    resolved = await _resolved(proxy, request, send, name)
    if resolved is None:
        return
    _set_headers(request, keep_s)
    target = resolved.target
    translated.body["model"] = target.sent_model
    if isinstance(target, PeerModel):
        translated.body.pop(LOCAL_ONLY, None)
    data: bytes | None = msgspec.json.encode(translated.body)
    if target.edits:
        data = await edited_body(proxy, request, send, resolved, target.sent_model, data or b"")
        if data is None:
            return
    forwarding = Forwarding(
        proxy, request, resolved, translated.path, translated.path.encode(), data
    )
    if request.query:
        forwarding.target += b"?" + request.query
    record = forwarding.record
    forwarding.length = len(data or b"")
    record.body, record.is_metered, record.is_stream = data, True, translated.is_stream
    responder = Responder(
        send, record, whole, answer=answer if translated.is_stream else None,
        limit_bytes=proxy.options.json_limit_bytes,
    )  # fmt: skip
    try:
        await forwarding.run(responder)
    except ResponseAbortedError as error:
        shown = proxy.view(request.access).text(str(error))
        await responder.fail(shown)


async def _resolved(
    proxy: ProxyContext, request: Request, send: Send, name: str
) -> ResolvedModel | None:
    """Return the model called *name*; None means that an error response was sent."""
    return await find_model(proxy, request, send, known_name(proxy.catalog, proxy.profiles, name))


def _set_headers(request: Request, keep_s: float | None) -> None:
    """Give *request* the headers of the translated body, and its idle limit."""
    before = request.cached_headers
    kept = [field for field in request.headers if field[0] not in _OF_CLIENT]
    request.headers = [*kept, (b"content-type", b"application/json")]
    request.send_in_messages()  # every response is translated
    cached = request.cached_headers = CachedHeaders(request.headers)
    cached.keep_alive_s = before.keep_alive_s if keep_s is None and before else keep_s


# ---- loading and unloading
async def _load(
    proxy: ProxyContext, request: Request, send: Send, body: ModelBody, kind: str,
    response: Json | None = None,
) -> None:  # fmt: skip
    """Load the model of a request that has no prompt, or unload it; then send *response*."""
    try:
        name, keep_s = bodies.name_in(body), bodies.idle_limit_in(body)
    except ApiError as error:
        await send_api_error(request, send, error)
        return
    resolved = await _resolved(proxy, request, send, name)
    if resolved is None:
        return
    is_unload = keep_s == 0
    try:
        target = resolved.target
        if isinstance(target, LocalModel):
            if is_unload:
                _unload(proxy, target)
            else:
                await _acquire_and_release(proxy, request, target, keep_s)
    except RequestError as failed:
        text = proxy.view(request.access).text(error_text(failed, request.access))
        more = rejection_fields(failed, request.access)
        await send_error(request, send, failed.status_hint, text, **more)
        return
    finally:
        if resolved.reservation is not None:
            resolved.reservation.release()
    if response is None:
        response = answers.loaded(kind, name, "unload" if is_unload else "load")
    await send_json(send, response)


def _unload(proxy: ProxyContext, local: LocalModel) -> None:
    """Stop *local* as soon as it has no requests, if it runs."""
    name = local.definition.id
    if proxy.supervisor.scheduler.services[name].phase in ("ready", "starting", "asleep"):
        proxy.supervisor[name].keep_for(0)


async def _acquire_and_release(
    proxy: ProxyContext, request: Request, local: LocalModel, keep_s: float | None
) -> None:
    """Wait until *local* is ready.

    Raises:
        RequestError: The scheduler rejects the request, or the model does not become ready.
    """
    definition = local.definition
    record = RequestRecord(request, local.recorded_name, request.path, perf_counter())
    request.watch()
    async with starting_once(proxy, record, request.path_bytes, b""):
        await proxy.supervisor.acquire(
            definition.id, priority=definition.priority, client=request.access.client
        )
    release_kept(proxy, local, keep_s)
