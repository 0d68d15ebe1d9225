"""Our API as an OpenAPI document; a test holds it to the table of routes.

Requests to models are described as far as we look at them: which model, and whether a stream is
wanted. The rest of their bodies and answers are the model's server's, and OpenAI's reference.
"""

from __future__ import annotations

from typing import Any

from ...http1.asgi_types import Send
from ..context import ProxyContext
from ..request import Request
from ..responses import send_json
from .inference_paths import GET_PATHS, POST_PATHS

Schema = dict[str, Any]
Operation = dict[str, Any]

METHODS = ("get", "post", "put", "delete", "patch")
_OBJECT: Schema = {"type": "object"}
_TEXT: Schema = {"type": "string"}
_ERRORS = {
    "400": "The request makes no sense; the text says what was expected.",
    "401": "A key is needed, and none that is valid was given.",
    "403": "The key is not good for this, or a page of another site asked.",
    "404": "There is no such model, or no such thing.",
    "409": "It cannot be done in the state that things are in.",
    "413": "The body is too large.",
    "415": "The body is of a type that is not taken here.",
    "421": "The Host field does not name this machine.",
    "429": "As many requests (of this model) or listeners as may be are there already.",
    "502": "The model's server failed.",
    "503": "Not now; see Retry-After.",
    "504": "The model's server did not answer in time.",
}
_ALWAYS = ("400", "401", "403", "421")
_OF_MODELS = (*_ALWAYS, "404", "413", "415", "429", "502", "503", "504")


def document(version: str) -> Schema:
    """Return the document for this *version* of the program."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "swapchart",
            "version": version or "0",
            "description": "Many local inference servers behind one OpenAI-compatible endpoint.",
        },
        "paths": paths(),
        "components": {
            "schemas": _schemas(),
            "responses": {code: _error(text) for code, text in _ERRORS.items()},
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "basic": {"type": "http", "scheme": "basic"},
                "header": {"type": "apiKey", "in": "header", "name": "x-api-key"},
            },
        },
        "security": [{"bearer": []}, {"basic": []}, {"header": []}, {}],
    }


async def show(proxy: ProxyContext, request: Request, send: Send) -> None:
    """Tell the document."""
    await send_json(send, document(proxy.options.version))


def paths() -> Schema:
    """Return all paths with their operations."""
    found = {
        **{path: {"post": _model_request(path)} for path in POST_PATHS},
        **_open(), **_pages(), **_facts(), **_books(), **_control(), **_passed_on(),
        **_configuration(), **_logs(),
    }  # fmt: skip
    for path in GET_PATHS:
        found.setdefault(path, {})["get"] = _model_query(path)
    return found


# ---- parts of the document
def _schemas() -> Schema:
    error = {
        "type": "object",
        "required": ["message", "type", "param", "code"],
        "properties": {
            "message": _TEXT,
            "type": _TEXT,
            "param": {"type": ["string", "null"]},
            "code": {"type": ["string", "null"]},
            "log": {"type": "array", "items": _TEXT, "description": "last lines of the model"},
        },
    }
    model = {
        "type": "object",
        "required": ["id", "object"],
        "properties": {"id": _TEXT, "object": {"const": "model"}, "owned_by": _TEXT},
    }
    return {
        "Error": {
            "type": "object",
            "required": ["src", "error"],
            "properties": {"src": {"const": "swapchart"}, "error": error},
        },
        "Model": model,
        "ModelRequest": {
            "type": "object",
            "required": ["model"],
            "properties": {"model": _TEXT, "stream": {"type": "boolean"}},
            "additionalProperties": True,
        },
        "ModelName": {
            "type": "object", "required": ["model"],
            "properties": {"model": {"type": "string", "minLength": 1}},
        },
        "ProfileName": {
            "type": "object", "required": ["name"],
            "properties": {"name": {"type": ["string", "null"]}},
        },
    }  # fmt: skip


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _error(text: str) -> Schema:
    """Every error is told in the form that the client asks for."""
    return {
        "description": text,
        "content": {
            "application/json": {"schema": _ref("Error")},
            "text/plain": {"schema": _TEXT},
            "text/html": {"schema": _TEXT},
        },
    }


def _json(schema: Schema, text: str = "As asked for.") -> Schema:
    return {"description": text, "content": {"application/json": {"schema": schema}}}


def _plain(kind: str = "text/plain", text: str = "As asked for.") -> Schema:
    return {"description": text, "content": {kind: {"schema": _TEXT}}}


def _moved(text: str) -> Schema:
    return {"description": text, "headers": {"location": {"schema": _TEXT}}}


def _operation(
    summary: str, answers: Schema, *errors: str, body: Schema | None = None,
    parameters: list[Schema] | None = None,
) -> Operation:  # fmt: skip
    responses = {**answers, **{c: {"$ref": f"#/components/responses/{c}"} for c in errors}}
    found: Operation = {"summary": summary, "responses": responses}
    if body is not None:
        found["requestBody"] = {"required": True, "content": {"application/json": {"schema": body}}}
    if parameters:
        found["parameters"] = parameters
    return found


def _in_path(name: str) -> Schema:
    schema = {"type": "string", "minLength": 1}
    return {"name": name, "in": "path", "required": True, "schema": schema}


def _in_query(name: str, schema: Schema, *, required: bool = False) -> Schema:
    return {"name": name, "in": "query", "required": required, "schema": schema}


# ---- the routes
def _model_request(path: str) -> Operation:
    answers = {"200": {"description": "The answer of the model's server, as it comes."}}
    found = _operation(
        f"Ask a model, at the path {path} of its server", answers, *_OF_MODELS,
        body=_ref("ModelRequest"),
    )  # fmt: skip
    content = found["requestBody"]["content"]
    content["multipart/form-data"] = {"schema": _ref("ModelRequest")}
    return found


def _model_query(path: str) -> Operation:
    answers = {"200": {"description": "The answer of the model's server, as it comes."}}
    return _operation(
        f"Ask a model, at the path {path} of its server", answers, *_OF_MODELS,
        parameters=[_in_query("model", _TEXT, required=True)],
    )  # fmt: skip


def _open() -> Schema:
    alive = _operation("Tell that the proxy answers", {"200": _plain()}, "400", "421")
    return {
        "/health": {"get": alive},
        "/wol-health": {"get": alive},
        "/": {"get": _operation("Go to the web UI", {"302": _moved("To /ui.")}, "400", "421")},
        "/favicon.ico": {
            "get": _operation("The icon", {"200": {"description": "It."}}, "400", "404", "421")
        },
        "/openapi.json": {"get": _operation("This document", {"200": _json(_OBJECT)}, *_ALWAYS)},
    }


def _pages() -> Schema:
    file = {"200": {"description": "A file."}, "304": {"description": "As it was."}}
    return {
        "/ui": {"get": _operation("Go to the web UI", {"301": _moved("To /ui/.")}, *_ALWAYS)},
        "/ui/": {"get": _operation("The web UI", file, *_ALWAYS, "404")},
        "/ui/{file}": {
            "get": _operation(
                "A file of the web UI", file, *_ALWAYS, "404", parameters=[_in_path("file")]
            )
        },
        "/upstream": {
            "get": _operation("Go to the list of models", {"302": _moved("To it.")}, *_ALWAYS)
        },
    }


def _facts() -> Schema:
    models = {
        "type": "object",
        "required": ["object", "data"],
        "properties": {
            "object": {"const": "list"},
            "data": {"type": "array", "items": _ref("Model")},
        },
    }
    model, limit = [_in_path("model")], {"type": "integer", "minimum": 1, "maximum": 10_000}
    return {
        "/v1/models": {"get": _operation("List the models", {"200": _json(models)}, *_ALWAYS)},
        "/models": {
            "get": _operation("List them as llama-server does", {"200": _json(models)}, *_ALWAYS)
        },
        "/running": {"get": _operation("List what runs", {"200": _json(_OBJECT)}, *_ALWAYS)},
        "/api/version": {"get": _operation("Tell versions", {"200": _json(_OBJECT)}, *_ALWAYS)},
        "/api/models/{model}/chart": {
            "get": _operation(
                "Tell the chart that a model runs by, and where in it the model is",
                {"200": _json(_OBJECT)}, *_ALWAYS, "404", parameters=model,
            )
        },
        "/api/models/{model}/history": {
            "get": _operation(
                "Tell the last transitions of a model", {"200": _json(_OBJECT)}, *_ALWAYS, "404",
                "503", parameters=[*model, _in_query("limit", limit)],
            )
        },
        "/api/models/{model}/explain": {
            "get": _operation(
                "Tell what a request would bring about", {"200": _json(_OBJECT)}, *_ALWAYS, "404",
                parameters=model,
            )
        },
        "/api/queue": {
            "get": _operation("Tell who waits, and why", {"200": _json(_OBJECT)}, *_ALWAYS)
        },
        "/api/events": {
            "get": _operation(
                "Tell what happens, as it happens", {"200": _plain("text/event-stream")}, *_ALWAYS,
                "413", "429",
            )
        },
    }  # fmt: skip


def _books() -> Schema:
    number = {"type": "integer", "minimum": 1, "maximum": 999}
    page = [_in_query("limit", number), _in_query("page", {"type": "integer", "minimum": 1,
                                                           "maximum": 10**9})]  # fmt: skip
    capture = {**_in_path("id"), "schema": {"type": "integer", "minimum": 0}}
    samples = {"200": _json(_OBJECT), "503": _json(_OBJECT, "It is switched off.")}
    return {
        "/api/metrics/activity": {
            "get": _operation(
                "Tell a page of finished requests", {"200": _json(_OBJECT)}, *_ALWAYS, "503",
                parameters=page,
            )
        },
        "/api/metrics/stats": {
            "get": _operation(
                "Tell totals", {"200": _json(_OBJECT)}, *_ALWAYS, "503",
                parameters=[_in_query("model", _TEXT)],
            )
        },
        "/api/captures/{id}": {
            "get": _operation(
                "Tell a whole request and its answer", {"200": _json(_OBJECT)}, *_ALWAYS, "404",
                parameters=[capture],
            )
        },
        "/metrics": {"get": _operation("Metrics for Prometheus", {"200": _plain()}, *_ALWAYS)},
        "/api/performance": {
            "get": _operation(
                "Tell samples of the machine", samples, *_ALWAYS,
                parameters=[_in_query("after", {"type": "string", "format": "date-time"})],
            )
        },
        "/api/hardware": {
            "get": _operation("Tell what the machine is", {"200": _json(_OBJECT)}, *_ALWAYS)
        },
    }  # fmt: skip


def _control() -> Schema:
    done, said = {"200": _json(_OBJECT)}, {"200": _plain()}
    asked = (*_ALWAYS, "404", "413", "415")
    name = _ref("ModelName")
    number = {**_in_path("id"), "schema": {"type": "integer", "minimum": 0}}
    return {
        "/unload": {"get": _operation("Stop all models", said, *_ALWAYS)},
        "/api/models/unload": {"post": _operation("Stop all models", done, *_ALWAYS, "415")},
        "/api/models/unload/{model}": {
            "post": _operation(
                "Stop a model", said, *asked, "409", "503", parameters=[_in_path("model")]
            )
        },
        "/models/load": {"post": _operation("Begin to load a model", done, *asked, body=name)},
        "/models/unload": {"post": _operation("Begin to stop a model", done, *asked, body=name)},
        "/api/profiles": {"get": _operation("List the profiles", done, *_ALWAYS)},
        "/api/profiles/active": {
            "put": _operation("Activate a profile", done, *asked, body=_ref("ProfileName"))
        },
        "/api/inflight/{id}/cancel": {
            "post": _operation("Cancel a request", done, *asked, parameters=[number])
        },
    }


def _passed_on() -> Schema:
    answers = {
        "200": {"description": "The answer of the model's server, as it comes."},
        "default": {"description": "Whatever the model's server answers."},
    }

    def each(summary: str, found: Schema, *names: str) -> Schema:
        parameters = [_in_path(name) for name in names]
        return {
            method: _operation(summary, found, *_ALWAYS, parameters=parameters)
            for method in METHODS
        }

    moved = {"301": _moved("With a slash."), "308": _moved("With a slash.")}
    return {
        "/upstream/{path}": each("Pass anything to a model: model/path", answers, "path"),
        "/comfyui": each("Go to ComfyUI", moved),
        "/comfyui/": each("ComfyUI's first page", answers),
        "/comfyui/{path}": each("Pass anything to ComfyUI", answers, "path"),
    }


def _configuration() -> Schema:
    done = {"200": _json(_OBJECT)}
    changing = (*_ALWAYS, "413", "415", "503")
    return {
        "/api/config": {"get": _operation("Tell where it came from", done, *_ALWAYS, "503")},
        "/api/config/plan": {
            "post": _operation("Tell what a reload would change", done, *changing)
        },
        "/api/config/reload": {"post": _operation("Read it again and apply it", done, *changing)},
    }


def _logs() -> Schema:
    log = {"200": _plain()}
    return {
        "/logs": {
            "get": _operation(
                "Show all logs", {**log, "302": _moved("A browser goes to the UI.")}, *_ALWAYS
            )
        },
        "/logs/stream": {"get": _operation("Stream all logs", log, *_ALWAYS, "413", "429")},
        "/logs/stream/{name}": {
            "get": _operation(
                "Stream a model's log", log, *_ALWAYS, "413", "429", parameters=[_in_path("name")]
            )
        },
    }
