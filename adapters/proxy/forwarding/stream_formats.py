"""Event stream formats in which progress is reported while a model loads."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Mapping
from time import time
from typing import Any, Protocol

_COMMENT = b": loading\n\n"


class StreamFormat(Protocol):
    """Events of one API.

    Attributes:
        mark: First and last line of the progress as text, with a newline; or empty.
    """

    mark: str

    def progress(self, text: str) -> bytes:
        """Return events that show *text*; a comment if the API has no place for it."""
        ...

    def keep_alive(self) -> bytes:
        """Return an event, or a comment, without content."""
        ...

    def error(self, error: Mapping[str, Any]) -> bytes:
        """Return the event for *error*, an error object."""
        ...


def _event(value: Mapping[str, Any], name: str = "") -> bytes:
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    kind = f"event: {name}\n" if name else ""
    return f"{kind}data: {text}\n\n".encode()


class _Plain:
    """Comments, for APIs whose streams have no place for progress."""

    mark = ""

    def __init__(self, model: str) -> None:
        self.model = model

    def progress(self, text: str) -> bytes:
        return f": {' '.join(text.split())}\n\n".encode()

    def keep_alive(self) -> bytes:
        return _COMMENT

    def error(self, error: Mapping[str, Any]) -> bytes:
        return _event({"error": error})


class _Chat(_Plain):
    """OpenAI chat completions: progress is sent as reasoning.

    Its marks are those of llama-swap, whose web page cuts out what is between them.
    """

    mark = "\u2501" * 5 + "\n"

    def __init__(self, model: str) -> None:
        super().__init__(model)
        self._id = f"chatcmpl-{secrets.token_hex(12)}"
        self._created = int(time())  # the same in all chunks of a stream

    def progress(self, text: str) -> bytes:
        choice = {"index": 0, "delta": {"reasoning_content": text}, "finish_reason": None}
        return _event(
            {
                "id": self._id, "object": "chat.completion.chunk", "created": self._created,
                "model": self.model, "choices": [choice],
            }
        )  # fmt: skip


class _Messages(_Plain):
    """Anthropic messages: pings are allowed at any time."""

    def progress(self, text: str) -> bytes:
        return super().progress(text) + self.keep_alive()

    def keep_alive(self) -> bytes:
        return _event({"type": "ping"}, "ping")

    def error(self, error: Mapping[str, Any]) -> bytes:
        return _event({"type": "error", "error": error}, "error")


class _Responses(_Plain):
    """OpenAI responses: errors are events named ``error``."""

    def error(self, error: Mapping[str, Any]) -> bytes:
        value = {"type": "error", "code": error["code"], "message": error["message"]}
        return _event({**value, "param": None, "error": error}, "error")


#: Path at the model's server -> format of its event streams. Other routes have none.
STREAM_FORMATS: Mapping[str, Callable[[str], StreamFormat]] = {
    "/v1/chat/completions": _Chat, "/chat/completions": _Chat,
    "/v1/messages": _Messages, "/messages": _Messages,
    "/v1/responses": _Responses, "/responses": _Responses,
    "/v1/completions": _Plain, "/completions": _Plain, "/completion": _Plain, "/infill": _Plain,
}  # fmt: skip
