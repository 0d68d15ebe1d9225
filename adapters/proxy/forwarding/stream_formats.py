"""Event stream formats in which progress is reported while a model loads."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Mapping
from time import time
from typing import Any, Protocol

_COMMENT = b": loading\n\n"


class StreamFormat(Protocol):
    """How clients of one API are told things."""

    def say(self, text: str) -> bytes:
        """Return events that show *text*; a comment where there is no place for words."""
        ...

    def beat(self) -> bytes:
        """Return a sign of life."""
        ...

    def fail(self, error: Mapping[str, Any]) -> bytes:
        """Return the event for *error*, an error object."""
        ...


def _event(value: Mapping[str, Any], name: str = "") -> bytes:
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    head = f"event: {name}\n" if name else ""
    return f"{head}data: {text}\n\n".encode()


class _Plain:
    """For clients whose streams have no place for words: comments."""

    def __init__(self, model: str) -> None:
        self.model = model

    def say(self, text: str) -> bytes:
        return f": {' '.join(text.split())}\n\n".encode()

    def beat(self) -> bytes:
        return _COMMENT

    def fail(self, error: Mapping[str, Any]) -> bytes:
        return _event({"error": error})


class _Chat(_Plain):
    """OpenAI's chat: words go where reasoning is shown."""

    def __init__(self, model: str) -> None:
        super().__init__(model)
        self._id = f"chatcmpl-{secrets.token_hex(12)}"

    def say(self, text: str) -> bytes:
        choice = {"index": 0, "delta": {"reasoning_content": text}, "finish_reason": None}
        return _event(
            {
                "id": self._id, "object": "chat.completion.chunk", "created": int(time()),
                "model": self.model, "choices": [choice],
            }
        )  # fmt: skip


class _Messages(_Plain):
    """Anthropic's messages: pings may come at any time."""

    def say(self, text: str) -> bytes:
        return super().say(text) + self.beat()

    def beat(self) -> bytes:
        return _event({"type": "ping"}, "ping")

    def fail(self, error: Mapping[str, Any]) -> bytes:
        return _event({"type": "error", "error": error}, "error")


class _Responses(_Plain):
    """OpenAI's responses: errors are events of that name."""

    def fail(self, error: Mapping[str, Any]) -> bytes:
        value = {"type": "error", "code": error["code"], "message": error["message"]}
        return _event({**value, "param": None, "error": error}, "error")


#: Path -> how its clients are told things. Other routes have no streams of events.
STREAM_FORMATS: Mapping[str, Callable[[str], StreamFormat]] = {
    "/v1/chat/completions": _Chat, "/v/chat/completions": _Chat,
    "/v1/messages": _Messages, "/v/messages": _Messages,
    "/v1/responses": _Responses, "/v/responses": _Responses,
    "/v1/completions": _Plain, "/v/completions": _Plain, "/completion": _Plain, "/infill": _Plain,
}  # fmt: skip
