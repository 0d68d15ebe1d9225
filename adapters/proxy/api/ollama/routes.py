"""Routes of Ollama's API."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeAlias

from msgspec import Struct

from ....http1.asgi_types import Send
from ...context import ProxyContext
from ...request import Request
from ...routing import TEXT, Content, Operation, ResponseType, Route, RouteAccess, RouteSubject
from ..schema.ollama import (
    ListedModels,
    LoadedModels,
    ModelFacts,
    OllamaVersion,
    PullStatus,
)
from . import inference, listing, unsupported
from .bodies import ChatBody, EmbedBody, EmbeddingsBody, GenerateBody, NameBody

_Handler: TypeAlias = Callable[[ProxyContext, Request, Send], Awaitable[None]]
_LOADS = "loads or unloads the model, may evict others"
_ANSWER = tuple(
    Content(200, "The response of the model, as lines of JSON or as one object.", media_type)
    for media_type in ("application/x-ndjson", "application/json")
)
_PULLED = Content(200, "States of the pull, as lines of JSON.", "application/x-ndjson")
_JSON = (Content(200, "The embeddings.", "application/json"),)
_REFUSED = (Content(501, "swapchart changes no models.", "application/json"),)
_MODEL_ERRORS = (400, 404, 413, 415, 429, 502, 503, 504)
_NAME_ERRORS = (400, 404, 413, 415)


def _route(
    method: str, path: str, handler: _Handler, summary: str, *responses: ResponseType,
    access: RouteAccess = "any", subject: RouteSubject = "models", changes: str = "",
    errors: tuple[int, ...] = (), body: type[Struct] | None = None, parameter: str = "",
) -> Route:  # fmt: skip
    return Route(
        method=method, path=path, handler=handler, access=access, subject=subject, changes=changes,
        operation=Operation(
            summary=f"{summary} (Ollama's API)", responses=responses, errors=errors, body=body,
            parameter=parameter,
        ),
    )  # fmt: skip


def _inference(
    path: str, handler: _Handler, summary: str, body: type[Struct], *responses: ResponseType
) -> Route:
    return _route(
        "POST", path, handler, summary, *responses, access="infer", changes=_LOADS,
        errors=_MODEL_ERRORS, body=body,
    )  # fmt: skip


def _refused(method: str, path: str, handler: _Handler, summary: str, parameter: str = "") -> Route:
    return _route(
        method, path, handler, summary, *_REFUSED, subject="nothing", changes="nothing",
        parameter=parameter,
    )  # fmt: skip


ROUTES = (
    *(
        _route("GET", path, listing.running, "Check that the server runs", TEXT, access="open",
               subject="nothing")
        for path in ("/ollama", "/ollama/")
    ),
    _route("GET", "/ollama/api/version", listing.version, "Get the version", OllamaVersion,
           subject="nothing"),
    _route("GET", "/ollama/api/tags", listing.tags, "List the models", ListedModels),
    _route("GET", "/ollama/api/ps", listing.loaded, "List the models whose server runs",
           LoadedModels),
    _route("POST", "/ollama/api/show", listing.show, "Describe a model", ModelFacts,
           errors=_NAME_ERRORS, body=NameBody),
    _inference("/ollama/api/chat", inference.chat, "Continue a conversation", ChatBody, *_ANSWER),
    _inference("/ollama/api/generate", inference.generate, "Respond to a prompt", GenerateBody,
               *_ANSWER),
    _inference("/ollama/api/embed", inference.embed, "Compute embeddings", EmbedBody, *_JSON),
    _inference("/ollama/api/embeddings", inference.embeddings, "Compute one embedding",
               EmbeddingsBody, *_JSON),
    _route("POST", "/ollama/api/pull", unsupported.pull, "Check that a model is configured",
           PullStatus, _PULLED, changes="nothing; nothing is downloaded",
           errors=(*_NAME_ERRORS, 501), body=NameBody),
    _refused("POST", "/ollama/api/push", unsupported.push, "Upload no model"),
    _refused("POST", "/ollama/api/create", unsupported.create, "Create no model"),
    _refused("POST", "/ollama/api/copy", unsupported.copy, "Copy no model"),
    _refused("DELETE", "/ollama/api/delete", unsupported.delete, "Delete no model"),
    _refused("POST", "/ollama/api/blobs/*", unsupported.blob, "Store no file", "digest"),
    _refused("GET", "/ollama/api/blobs/*", unsupported.blob, "Find no file", "digest"),
)  # fmt: skip
