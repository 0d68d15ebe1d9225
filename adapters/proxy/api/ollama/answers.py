"""Responses of a model's server as the records of Ollama's API. Pure.

An `Answer` gets the JSON values of the server in order: the events of a stream, or one whole
response. It returns the records for the client. What the server says of tokens and times counts;
times that it does not report are those that the proxy has measured.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Literal, TypeAlias

from .....dataclass import dataclass, field

Json: TypeAlias = dict[str, Any]
_NS = 1_000_000_000
_NS_OF_MS = 1_000_000
_REASONS = {"length": "length", "limit": "length"}


def created_at() -> str:
    """Return the present time as RFC 3339 in UTC."""
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """Times of a request in seconds on one clock; 0 is unknown.

    Attributes:
        started: Arrival of the request.
        admitted: Its model was ready.
        first: The first piece of the response arrived.
        ended: The last one arrived.
    """

    started: float
    admitted: float
    first: float
    ended: float

    def durations(self) -> Json:
        """Return the durations in nanoseconds that all records at the end of a response have."""
        admitted = self.admitted or self.started
        return {
            "total_duration": int((self.ended - self.started) * _NS),
            "load_duration": int((admitted - self.started) * _NS),
        }


@dataclass(slots=True)
class _Call:
    """Call of a function, which arrives in pieces."""

    name: str = ""
    arguments: str = ""
    id: str = ""


@dataclass(slots=True)
class _Piece:
    """Part that one value of the server adds to the response."""

    text: str = ""
    thinking: str = ""
    calls: list[Json] = field(default_factory=list)
    is_last: bool = False


class Answer:
    """Response to a request for a text.

    Args:
        kind: ``chat`` or ``generate``.
        model: Name of the model in the request.
        shows_thinking: The client gets the reasoning of the model.

    Attributes:
        has_ended: The server has said why its response ends.
    """

    def __init__(
        self, kind: Literal["chat", "generate"], model: str, *, shows_thinking: bool = True
    ) -> None:
        self._kind, self._model, self._shows_thinking = kind, model, shows_thinking
        self._calls: dict[int, _Call] = {}
        self._reason = "stop"
        self._usage: Mapping[str, Any] = {}
        self._timings: Mapping[str, Any] = {}
        self.has_ended = False

    def piece(self, value: Mapping[str, Any]) -> Json | None:
        """Return the record for one event of a stream; None if it has nothing for the client."""
        piece = self._read(value)
        if piece.text or piece.thinking or piece.calls:
            return self._record(piece, is_done=False)
        return None

    def empty(self) -> Json:
        """Return a record without content, which keeps the connection alive."""
        return self._record(_Piece(), is_done=False)

    def end(self, times: Times) -> list[Json]:
        """Return the last records of a stream."""
        records = []
        if calls := self._take_calls():
            records.append(self._record(calls, is_done=False))
        return [*records, {**self._record(_Piece(), is_done=True), **self._totals(times)}]

    def whole(self, value: Mapping[str, Any], times: Times) -> Json:
        """Return the only record of a response that is not streamed."""
        piece = self._read(value)
        calls = self._take_calls()
        piece.calls += calls.calls if calls else []
        piece.text += calls.text if calls else ""
        return {**self._record(piece, is_done=True), **self._totals(times)}

    # ---- values of the server
    def _read(self, value: Mapping[str, Any]) -> _Piece:
        for name in ("usage", "timings"):
            if isinstance(found := value.get(name), dict):
                setattr(self, f"_{name}", found)
        choices = value.get("choices")
        if not isinstance(choices, list):
            return self._read_native(value)
        choice = choices[0] if choices else None
        if not isinstance(choice, dict):
            return _Piece()
        if isinstance(reason := choice.get("finish_reason"), str):
            self._end_for(reason)
        part = choice.get("delta") or choice.get("message")
        if not isinstance(part, dict):
            return _Piece(text=_text(choice.get("text")))
        self._add_calls(part.get("tool_calls"))
        thinking = _text(part.get("reasoning_content")) or _text(part.get("reasoning"))
        piece = _Piece(_text(part.get("content")), thinking if self._shows_thinking else "")
        if self.has_ended and (calls := self._take_calls()):
            piece.text, piece.calls = piece.text + calls.text, calls.calls
        return piece

    def _read_native(self, value: Mapping[str, Any]) -> _Piece:
        """Read a value of llama-server's ``/infill``."""
        if value.get("stop") is True:
            self._end_for(_text(value.get("stop_type")))
            self._usage = {
                "prompt_tokens": value.get("tokens_evaluated"),
                "completion_tokens": value.get("tokens_predicted"),
            }
        return _Piece(text=_text(value.get("content")))

    def _end_for(self, reason: str) -> None:
        self.has_ended = True
        self._reason = _REASONS.get(reason, "stop")

    def _add_calls(self, given: object) -> None:
        for place, part in enumerate(given if isinstance(given, list) else ()):
            if not isinstance(part, dict):
                continue
            index = part.get("index")
            call = self._calls.setdefault(index if isinstance(index, int) else place, _Call())
            call.id = call.id or _text(part.get("id"))
            function = part.get("function")
            if isinstance(function, dict):
                call.name += _text(function.get("name"))
                arguments = function.get("arguments")
                is_object = isinstance(arguments, dict)
                call.arguments += json.dumps(arguments) if is_object else _text(arguments)

    def _take_calls(self) -> _Piece | None:
        """Return the calls that have arrived; one without valid arguments is returned as text."""
        if not self._calls:
            return None
        piece = _Piece()
        for call in self._calls.values():
            try:
                arguments = json.loads(call.arguments or "{}")
            except (ValueError, RecursionError):
                arguments = None
            if isinstance(arguments, dict):
                function = {"index": len(piece.calls), "name": call.name, "arguments": arguments}
                own = {"id": call.id} if call.id else {}
                piece.calls.append({**own, "function": function})
            else:
                piece.text += json.dumps({"name": call.name, "arguments": call.arguments})
        self._calls.clear()
        return piece

    # ---- records
    def _record(self, piece: _Piece, *, is_done: bool) -> Json:
        record: Json = {"model": self._model, "created_at": created_at()}
        if self._kind == "chat":
            message: Json = {"role": "assistant", "content": piece.text}
            if piece.thinking:
                message["thinking"] = piece.thinking
            if piece.calls:
                message["tool_calls"] = piece.calls
            record["message"] = message
        else:
            record["response"] = piece.text
            if piece.thinking:
                record["thinking"] = piece.thinking
        record["done"] = is_done
        return record

    def _totals(self, times: Times) -> Json:
        usage, timings = self._usage, self._timings
        admitted = times.admitted or times.started
        first = times.first or times.ended
        prompt = _count(usage.get("prompt_tokens"))
        if prompt is None:
            prompt = (_count(timings.get("prompt_n")) or 0) + (_count(timings.get("cache_n")) or 0)
        predicted = _count(usage.get("completion_tokens"))
        if predicted is None:
            predicted = _count(timings.get("predicted_n")) or 0
        return {
            "done_reason": self._reason,
            **times.durations(),
            "prompt_eval_count": prompt,
            "prompt_eval_duration": _ns(timings.get("prompt_ms"), first - admitted),
            "eval_count": predicted,
            "eval_duration": _ns(timings.get("predicted_ms"), times.ended - first),
        }


def loaded(kind: str, model: str, reason: Literal["load", "unload"]) -> Json:
    """Return the record for a request without a prompt, which loads or unloads its model."""
    record: Json = {"model": model, "created_at": created_at()}
    if kind == "chat":
        record["message"] = {"role": "assistant", "content": ""}
    else:
        record["response"] = ""
    return {**record, "done": True, "done_reason": reason}


def embedded(model: str, value: Mapping[str, Any], times: Times) -> Json:
    """Return the response to ``/api/embed``.

    Raises:
        ValueError: *value* has no embeddings.
    """
    usage = value.get("usage")
    count = _count(usage.get("prompt_tokens")) if isinstance(usage, dict) else None
    return {
        "model": model, "embeddings": _vectors(value), **times.durations(),
        "prompt_eval_count": count or 0,
    }  # fmt: skip


def embedding(value: Mapping[str, Any]) -> Json:
    """Return the response to ``/api/embeddings``.

    Raises:
        ValueError: *value* has no embeddings.
    """
    return {"embedding": _vectors(value)[0]}


def _vectors(value: Mapping[str, Any]) -> list[Any]:
    rows = value.get("data")
    rows = rows if isinstance(rows, list) else []
    found = [row.get("embedding") for row in rows if isinstance(row, dict)]
    if not found or not all(isinstance(vector, list) for vector in found):
        raise ValueError("the model's server sent no embeddings")
    return found


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _ns(ms: object, measured_s: float) -> int:
    """Return nanoseconds: the *ms* that the server reports, or what was measured."""
    if isinstance(ms, (int, float)) and not isinstance(ms, bool):
        return int(ms * _NS_OF_MS)
    return max(0, int(measured_s * _NS))
