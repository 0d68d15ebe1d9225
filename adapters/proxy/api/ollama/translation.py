"""Requests of Ollama's API as requests of OpenAI's API. Pure.

Texts and conversations become chat completions, so that the model's server applies the template of
the model. A prompt in ``raw`` mode becomes a completion, and one with a ``suffix`` a request to
llama-server's ``/infill``.
"""

from __future__ import annotations

import binascii
import json
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

from .....dataclass import dataclass
from ...responses import ApiError
from .bodies import ChatBody, ChatMessage, EmbedBody, EmbeddingsBody, GenerateBody, ToolCall
from .options import parameters

Json: TypeAlias = dict[str, Any]

CHAT, COMPLETIONS, INFILL = "/v1/chat/completions", "/v1/completions", "/infill"
EMBEDDINGS = "/v1/embeddings"
#: Parameter that only servers of local models have; the API of a peer may refuse it.
LOCAL_ONLY = "chat_template_kwargs"
_LEVELS = frozenset({"low", "medium", "high"})
_HEAD_CHARS = 64  # of an image in base64, which tell its type
_IMAGE_TYPES = (
    (b"\x89PNG\r\n\x1a\n", "png"), (b"\xff\xd8\xff", "jpeg"), (b"GIF8", "gif"), (b"BM", "bmp"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Translated:
    """A request for the server of a model, without the name of the model.

    Attributes:
        path: Path at the server.
        body: JSON body.
        is_stream: The response is a stream.
    """

    path: str
    body: Json
    is_stream: bool = False


def chat(given: ChatBody) -> Translated:
    """Return the request for *given*, which has messages.

    Raises:
        ApiError: A value is not valid.
    """
    body: Json = {"messages": _messages(given.messages or ())}
    if given.tools:
        body["tools"] = given.tools
    body |= _format(given.format) | _thinking(given.think) | parameters(given.options)
    return _generating(CHAT, body, given.stream)


def generate(given: GenerateBody) -> Translated:
    """Return the request for *given*, which has a prompt or images.

    Raises:
        ApiError: A value is not valid, or is not supported.
    """
    if given.template:
        raise ApiError(
            400,
            "`template` is not supported: the model's server has the template of the model; "
            "send a prompt with its own marks as `raw`",
        )
    prompt = given.prompt or ""
    if given.suffix:
        limits = parameters(given.options, "n_predict")
        body = {"input_prefix": prompt, "input_suffix": given.suffix, **limits}
        return _generating(INFILL, body, given.stream)
    if given.raw:
        if given.images:
            raise ApiError(400, "`raw` is not supported with `images`")
        found = {"prompt": prompt, **_format(given.format), **parameters(given.options)}
        return _generating(COMPLETIONS, found, given.stream)
    messages: list[Json] = []
    if given.system:
        messages.append({"role": "system", "content": given.system})
    messages.append({"role": "user", "content": _content(prompt, given.images)})
    body = {"messages": messages, **_format(given.format), **_thinking(given.think)}
    return _generating(CHAT, body | parameters(given.options), given.stream)


def embed(given: EmbedBody) -> Translated:
    """Return the request for *given*, which has an input."""
    body: Json = {"input": given.input}
    if given.dimensions:
        body["dimensions"] = given.dimensions
    return Translated(EMBEDDINGS, body)


def embeddings(given: EmbeddingsBody) -> Translated:
    """Return the request for *given*, which has a prompt."""
    return Translated(EMBEDDINGS, {"input": given.prompt})


def _generating(path: str, body: Json, stream: bool | None) -> Translated:
    is_stream = stream is not False  # the default of Ollama's API
    body["stream"] = is_stream
    if is_stream and path != INFILL:
        body["stream_options"] = {"include_usage": True}
    return Translated(path, body, is_stream)


def _format(given: str | Json | None) -> Json:
    if not given:
        return {}
    if given == "json":
        return {"response_format": {"type": "json_object"}}
    if isinstance(given, str):
        raise ApiError(400, f"`format`: expected json or a JSON schema, got {given[:40]!r}")
    schema = {"name": "response", "schema": given, "strict": True}
    return {"response_format": {"type": "json_schema", "json_schema": schema}}


def _thinking(given: bool | str | None) -> Json:
    if given is None or given == "":
        return {}
    if isinstance(given, bool):
        return {LOCAL_ONLY: {"enable_thinking": given}}
    if given not in _LEVELS:
        levels = "true, false, low, medium or high"
        raise ApiError(400, f"`think`: expected {levels}, got {given[:40]!r}")
    return {
        "reasoning_effort": given,
        LOCAL_ONLY: {"enable_thinking": True, "reasoning_effort": given},
    }


# ---- messages
def _messages(given: Sequence[ChatMessage]) -> list[Json]:
    """Return OpenAI's messages; results of functions get the ids of their calls in order."""
    found, open_calls, count = [], deque[tuple[str, str]](), 0
    for message in given:
        value: Json = {
            "role": message.role, "content": _content(message.content or "", message.images)
        }  # fmt: skip
        if message.thinking:
            value["reasoning_content"] = message.thinking
        if message.tool_calls:
            calls = [_call(call, count + place) for place, call in enumerate(message.tool_calls)]
            count += len(calls)
            value["tool_calls"] = calls
            open_calls = deque((call["id"], call["function"]["name"]) for call in calls)
        if message.role == "tool":
            value["tool_call_id"] = message.tool_call_id or _id_of(message.tool_name, open_calls)
        found.append(value)
    return found


def _call(given: ToolCall, place: int) -> Json:
    arguments = given.function.arguments
    text = arguments if isinstance(arguments, str) else json.dumps(arguments or {})
    function = {"name": given.function.name, "arguments": text}
    return {"id": given.id or f"call_{place}", "type": "function", "function": function}


def _id_of(name: str | None, open_calls: deque[tuple[str, str]]) -> str:
    """Return the id of the first call without a result, of the function *name* if there is one."""
    found = next((call for call in open_calls if call[1] == name), None)
    if found is None and not open_calls:
        return "call_0"
    found = found or open_calls[0]
    open_calls.remove(found)
    return found[0]


def _content(text: str, images: Iterable[str] | None) -> str | list[Json]:
    if not images:
        return text
    parts: list[Json] = [{"type": "text", "text": text}] if text else []
    parts += [{"type": "image_url", "image_url": {"url": _url(image)}} for image in images]
    return parts


def _url(image: str) -> str:
    """Return *image*, which is encoded in base64 or is a data URL, as a data URL."""
    if image.startswith("data:image/"):
        return image
    try:
        head = binascii.a2b_base64(image[:_HEAD_CHARS].encode("ascii"), strict_mode=True)
    except (binascii.Error, UnicodeEncodeError):
        head = b""
    kind = next((kind for start, kind in _IMAGE_TYPES if head.startswith(start)), "")
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        kind = "webp"
    if not kind:
        raise ApiError(
            400, "`images`: expected images in base64 of type PNG, JPEG, GIF, WebP or BMP"
        )
    return f"data:image/{kind};base64,{image}"
