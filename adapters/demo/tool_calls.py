"""Tool calls of the fake model: the text of a user asks for one, in plain words.

``call NAME with {"key": "value"}`` calls the tool NAME of the request with these arguments. The
next reply quotes the result.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from .fake_model import Json, text_of

_USER, _RESULT, _MODEL = "user", "result", "model"


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One call.

    Attributes:
        name: Name of a tool of the request.
        arguments: JSON text of an object.
    """

    name: str
    arguments: str


def pending(body: Json, messages: Sequence[Json]) -> tuple[ToolCall | None, str]:
    """Return the call that the last turn asks for, or None, and the result of the last call.

    Args:
        body: A request of OpenAI's or Anthropic's API, for its ``tools``.
        messages: Its messages or input items, oldest first.
    """
    names = [name for tool in _objects(body.get("tools")) if (name := _name(tool))]
    call, result = None, ""
    for kind, text in _turns(messages):
        if kind == _USER:
            call = next(filter(None, (_asked(text, name) for name in names)), call)
        else:
            call, result = None, text if kind == _RESULT else ""
    return call, result


def _turns(messages: Sequence[Json]) -> Iterator[tuple[str, str]]:
    """Yield kind and text of each turn; a message of Anthropic's can hold several results."""
    for message in messages:
        content = message.get("content")
        if message.get("type") == "function_call_output":
            yield _RESULT, text_of(message.get("output"))
        elif message.get("role") == "tool":
            yield _RESULT, text_of(content)
        elif message.get("role") == "assistant" or message.get("type") == "function_call":
            yield _MODEL, ""
        elif message.get("role") == "user":
            for part in content if isinstance(content, list) else [{"text": content}]:
                if isinstance(part, dict) and part.get("type") == "tool_result":
                    yield _RESULT, text_of(part.get("content"))
                else:
                    yield _USER, text_of([part])


def _objects(value: object) -> list[Json]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _name(tool: Json) -> str:
    function = tool.get("function")
    return str((function if isinstance(function, dict) else tool).get("name") or "")


def _asked(text: str, name: str) -> ToolCall | None:
    opening = f"call {name} with "
    _, found, rest = text.rpartition(opening)
    if not found:
        return None
    try:
        value, _ = json.JSONDecoder().raw_decode(rest)
    except ValueError:
        return None
    return ToolCall(name, json.dumps(value)) if isinstance(value, dict) else None
