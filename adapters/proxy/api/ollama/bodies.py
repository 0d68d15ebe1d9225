"""Bodies of requests to Ollama's API, and how they are read."""

from __future__ import annotations

import math
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from ....http1.asgi_types import Headers, Send
from ...access.keep_alive import KeepAliveError, idle_limit
from ...body.errors import BadBodyError, BodyTooLargeError, UnknownCodingError
from ...body.memory_budget import BodyBudgetError
from ...context import ProxyContext
from ...forwarding.encoded_body import BYTE_ORDER_MARK, coding_of, unpacked
from ...request import Request
from ...responses import ApiError, send_api_error

B = TypeVar("B", bound=Struct)


class CalledFunction(Struct, kw_only=True):
    """Name and arguments of a call."""

    name: str
    arguments: dict[str, Any] | str | None = None


class ToolCall(Struct, kw_only=True):
    """Call of a function by the model."""

    function: CalledFunction
    id: str | None = None


class ChatMessage(Struct, kw_only=True):
    """One message of a conversation; images are encoded in base64."""

    role: str
    content: str | None = None
    thinking: str | None = None
    images: list[str] | None = None
    tool_calls: list[ToolCall] | None = None
    tool_name: str | None = None
    tool_call_id: str | None = None


class ModelBody(Struct, kw_only=True):
    """A request for a model; older clients call it by ``name``."""

    model: str | None = None
    name: str | None = None
    keep_alive: float | str | None = None
    options: dict[str, Any] | None = None
    stream: bool | None = None


class ChatBody(ModelBody, kw_only=True):
    """A request to ``/api/chat``."""

    messages: list[ChatMessage] | None = None
    tools: list[dict[str, Any]] | None = None
    format: str | dict[str, Any] | None = None
    think: bool | str | None = None


class GenerateBody(ModelBody, kw_only=True):
    """A request to ``/api/generate``."""

    prompt: str | None = None
    suffix: str | None = None
    system: str | None = None
    template: str | None = None
    context: list[int] | None = None
    raw: bool | None = None
    images: list[str] | None = None
    format: str | dict[str, Any] | None = None
    think: bool | str | None = None


class EmbedBody(ModelBody, kw_only=True):
    """A request to ``/api/embed``."""

    input: str | list[str] | None = None
    truncate: bool | None = None
    dimensions: int | None = None


class EmbeddingsBody(ModelBody, kw_only=True):
    """A request to ``/api/embeddings``."""

    prompt: str | None = None


class NameBody(Struct, kw_only=True):
    """A request about a model."""

    model: str | None = None
    name: str | None = None
    stream: bool | None = None
    verbose: bool | None = None


def name_in(body: ModelBody | NameBody) -> str:
    """Return the name of the model that *body* names.

    Raises:
        ApiError: It names none.
    """
    name = body.model or body.name
    if not name:
        raise ApiError(400, "model is required")
    return name


def idle_limit_in(body: ModelBody) -> float | None:
    """Return the idle limit in seconds that *body* sets, infinity for none; None if it sets none.

    Raises:
        ApiError: The value is neither a number nor a duration.
    """
    if body.keep_alive is None:
        return None
    value = body.keep_alive
    try:
        return idle_limit("keep_alive", value if isinstance(value, str) else f"{value:f}")
    except KeepAliveError as error:
        raise ApiError(400, str(error)) from error


async def read(proxy: ProxyContext, request: Request, send: Send, kind: type[B]) -> B | None:
    """Return the JSON body of *request*; None means that an error response was sent."""
    try:
        return await decoded(proxy, request, kind)
    except ApiError as error:
        await send_api_error(request, send, error)
        return None


async def decoded(proxy: ProxyContext, request: Request, kind: type[B]) -> B:
    """Return the JSON body of *request*.

    Raises:
        ApiError: It is not valid, or too large.
    """
    close: Headers = [(b"connection", b"close")]
    try:
        return _parsed(await _unpacked(proxy, request), kind)
    except UnknownCodingError as unknown:
        accepted = [(b"accept-encoding", b"gzip")]  # RFC 9110 section 12.5.3
        raise ApiError(415, str(unknown), headers=accepted) from unknown
    except BodyTooLargeError as too_large:
        raise ApiError(413, str(too_large), headers=close) from too_large
    except BodyBudgetError as full:
        wait = (b"retry-after", b"%d" % math.ceil(full.wait_s))
        raise ApiError(503, str(full), headers=[wait, *close]) from full
    except BadBodyError as error:
        raise ApiError(400, str(error)) from error


async def _unpacked(proxy: ProxyContext, request: Request) -> bytes:
    limit_bytes = proxy.options.json_limit_bytes
    body = await request.body(limit_bytes)
    if coding_of(request):
        body = await unpacked(request, body, limit_bytes)
    return body.removeprefix(BYTE_ORDER_MARK)


def _parsed(body: bytes, kind: type[B]) -> B:
    if not body.strip():
        raise ApiError(400, "missing request body")
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        raise ApiError(400, f"the body is not valid: {error}") from error
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise ApiError(400, f"the body is not valid JSON: {error}") from error
