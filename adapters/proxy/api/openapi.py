"""OpenAPI document of our own API, generated from the route table and the types of its bodies.

Requests to models are described as far as the proxy reads them: the model, and whether the client
asks for a stream. The rest of their bodies and responses belongs to the model's server.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from http import HTTPStatus
from typing import Any, TypeAlias

import msgspec
from msgspec import Struct

from ...http1.asgi_types import Send
from ..context import ProxyContext
from ..request import Request
from ..responses import is_anthropic, is_ollama, send_json
from ..routing import Content, Operation, ResponseType, Route
from .schema.base import Body
from .schema.control import AnthropicError, Error
from .schema.ollama import OllamaError

Schema: TypeAlias = dict[str, Any]
#: Returns the routes that the document describes.
Routes: TypeAlias = Callable[[], Iterable[Route]]

#: The response of a route whose requests are forwarded to a model's server.
UPSTREAM = Content(200, "Response of the model's server, forwarded unchanged.")
UPSTREAM_OTHER = Content(0, "Any response of the model's server.")
#: Methods of a route that takes any.
METHODS = ("get", "post", "put", "delete", "patch")
_REFERENCE = "#/components/schemas/{name}"
_TEXT: Schema = {"type": "string"}
_ERRORS = {
    400: "The request is invalid; the message says what was expected.",
    401: "The request needs an API key, and has no valid one.",
    403: "The API key does not allow this, or a web page of another origin sent the request.",
    404: "There is no such model or resource.",
    409: "The present state does not allow this.",
    413: "The body is too large.",
    415: "The media type of the body is not accepted.",
    421: "The Host header does not name this machine.",
    429: "The maximum number of requests or subscribers is reached.",
    501: "swapchart does not do this; the message says why.",
    502: "The model's server failed.",
    503: "Not possible at present; see Retry-After.",
    504: "The model's server did not respond in time.",
}


def handler(routes: Routes) -> Callable[[ProxyContext, Request, Send], Any]:
    """Return the handler that sends the document of *routes*."""
    documents: dict[str, Schema] = {}

    async def show(proxy: ProxyContext, request: Request, send: Send) -> None:
        version = proxy.options.version
        if version not in documents:
            documents[version] = document(routes(), version)
        found = documents[version]
        if root := request.root_path.decode():
            found = {**found, "servers": [{"url": root}]}
        await send_json(send, found)

    return show


def document(routes: Iterable[Route], version: str) -> Schema:
    """Return the document of *routes* for this *version* of the program."""
    routes = tuple(routes)
    paths: Schema = {}
    for route in routes:
        path = route.path.replace("*", f"{{{route.operation.parameter}}}")
        methods = METHODS if route.method == "*" else (route.method.lower(),)
        paths.setdefault(path, {}).update(dict.fromkeys(methods, _operation(route)))
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "swapchart",
            "version": version or "0",
            "description": "Many local inference servers behind one OpenAI-compatible endpoint.",
        },
        "paths": paths,
        "components": {
            "schemas": _schemas(routes),
            "responses": {
                f"{status}{suffix}": describe(text)
                for suffix, describe in _ERROR_FORMS.items()
                for status, text in _ERRORS.items()
            },
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "basic": {"type": "http", "scheme": "basic"},
                "header": {"type": "apiKey", "in": "header", "name": "x-api-key"},
            },
        },
        "security": [{"bearer": []}, {"basic": []}, {"header": []}, {}],
    }


def _schemas(routes: Iterable[Route]) -> Schema:
    operations = [route.operation for route in routes]
    types: dict[type, None] = {Error: None, AnthropicError: None, OllamaError: None}
    for operation in operations:
        types.update((kind, None) for kind in operation.responses if not isinstance(kind, Content))
        if operation.body is not None:
            types[operation.body] = None
    _, schemas = msgspec.json.schema_components(types, ref_template=_REFERENCE)
    requests = {operation.body.__name__ for operation in operations if operation.body is not None}
    for name, schema in schemas.items():
        if name not in requests:
            _require_defaults(schema)
    return schemas


def _require_defaults(schema: Schema) -> None:
    """Mark what has a default as required: a response always holds it."""
    properties = schema.get("properties", {})
    required = set(schema.get("required", ()))
    for name, value in properties.items():
        if "default" in value:
            del value["default"]
            required.add(name)
    if required:
        schema["required"] = [name for name in properties if name in required]


def _operation(route: Route) -> Schema:
    operation = route.operation
    always = (400, 421) if route.access == "open" else (400, 401, 403, 421)
    suffix = _error_form(route)
    found: Schema = {
        "summary": operation.summary,
        "responses": {
            **_responses(operation.responses),
            **{
                str(status): {"$ref": f"#/components/responses/{status}{suffix}"}
                for status in sorted({*always, *operation.errors})
                if status not in map(_status, operation.responses)
            },
        },
    }
    if operation.body is not None:
        reference = {"$ref": _REFERENCE.format(name=operation.body.__name__)}
        content = {media_type: {"schema": reference} for media_type in operation.body_types}
        found["requestBody"] = {"required": True, "content": content}
    parameters = _parameters(operation, has_wildcard="*" in route.path)
    if parameters:
        found["parameters"] = parameters
    return found


def _parameters(operation: Operation, *, has_wildcard: bool) -> list[Schema]:
    found: list[Schema] = []
    if has_wildcard:
        schema = msgspec.json.schema(operation.parameter_type)
        if operation.parameter_type is str:
            schema["minLength"] = 1
        name = operation.parameter
        found.append({"name": name, "in": "path", "required": True, "schema": schema})
    for name, kind in operation.query.items():
        schema, required = msgspec.json.schema(kind), name in operation.required
        found.append({"name": name, "in": "query", "required": required, "schema": schema})
    return found


def _status(kind: ResponseType) -> int | str:
    if isinstance(kind, Content):
        return kind.status or "default"
    return kind.STATUS if issubclass(kind, Body) else 200


def _responses(kinds: Iterable[ResponseType]) -> Schema:
    """Return status -> response; kinds with one status are media types of one response."""
    found: Schema = {}
    for kind in kinds:
        status, response = str(_status(kind)), _response(kind)
        if status in found:
            found[status]["content"].update(response["content"])
        else:
            found[status] = response
    return found


def _response(kind: ResponseType) -> Schema:
    if not isinstance(kind, Content):
        reference = {"$ref": _REFERENCE.format(name=kind.__name__)}
        text = HTTPStatus(int(_status(kind))).phrase
        return {"description": text, "content": {"application/json": {"schema": reference}}}
    found: Schema = {"description": kind.description}
    if kind.media_type:
        schema: Schema = {} if kind.media_type == "application/json" else _TEXT
        found["content"] = {kind.media_type: {"schema": schema}}
    if kind.headers:
        found["headers"] = {name: {"schema": _TEXT} for name in kind.headers}
    return found


def _error_form(route: Route) -> str:
    """Return the key in `_ERROR_FORMS` of the errors of *route*, which its path determines."""
    if is_ollama(route.path):
        return "-ollama"
    if UPSTREAM not in route.operation.responses:
        return ""
    return "-anthropic" if is_anthropic(route.path) else "-model"


def _json_error(text: str, kind: type[Struct]) -> Schema:
    """Return a response with an error of *kind*, whatever the client accepts."""
    reference = {"$ref": _REFERENCE.format(name=kind.__name__)}
    return {"description": text, "content": {"application/json": {"schema": reference}}}


def _error(text: str, kind: type[Struct] = Error) -> Schema:
    """Return a response with an error in the form that the client accepts."""
    found = _json_error(text, kind)
    found["content"].update({name: {"schema": _TEXT} for name in ("text/plain", "text/html")})
    return found


def _model_error(text: str, kind: type[Struct] = Error) -> Schema:
    """Return a response with an error of the proxy, or one of the model's server in any form."""
    found = _error(f"{text} Or a response of the model's server.", kind)
    ours = found["content"]["application/json"]["schema"]
    found["content"]["application/json"]["schema"] = {"anyOf": [ours, {}]}
    return found


#: Suffix of the name of a response -> how its errors are described, from the text of the status.
_ERROR_FORMS: dict[str, Callable[[str], Schema]] = {
    "": _error,
    "-model": _model_error,
    "-anthropic": partial(_model_error, kind=AnthropicError),
    "-ollama": partial(_json_error, kind=OllamaError),
}
