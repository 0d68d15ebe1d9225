"""Response formats of one generation: OpenAI's, Anthropic's and llama.cpp's own.

A format turns starts, pieces and ends into JSON values; it knows neither bytes nor time.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from .engine import Outcome
from .fake_model import Json

FINGERPRINT = "demo-1"
DONE = b"data: [DONE]\n\n"


def event(value: object, name: str = "") -> bytes:
    """Return *value* as one server-sent event."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return f"event: {name}\ndata: {text}\n\n".encode() if name else f"data: {text}\n\n".encode()


class ApiFormat(Protocol):
    """Response format of one request."""

    def start(self, outcome: Outcome) -> bytes:
        """Return the events before the first piece; may be empty."""
        ...

    def piece(self, text: str) -> bytes:
        """Return the events of one piece."""
        ...

    def end(self, outcome: Outcome) -> Sequence[bytes]:
        """Return the chunks that follow the last piece."""
        ...

    def whole(self, outcome: Outcome) -> Json:
        """Return the response to a request that does not stream."""
        ...


class Chat:
    """``/v1/chat/completions``."""

    def __init__(self, model: str, body: Json) -> None:
        options = body.get("stream_options")
        self._with_usage = isinstance(options, dict) and bool(options.get("include_usage"))
        self._common = {
            "created": int(time.time()),
            "id": f"chatcmpl-{_unique()}",
            "model": model,
            "system_fingerprint": FINGERPRINT,
        }
        self._has_call = False

    def _chunk(self, delta: Json, finish: str | None = None) -> Json:
        choice = {"finish_reason": finish, "index": 0, "delta": delta}
        return {"choices": [choice], **self._common, "object": "chat.completion.chunk"}

    def start(self, outcome: Outcome) -> bytes:
        """Return the chunk that names the role, and that of a tool call without its arguments."""
        role = event(self._chunk({"role": "assistant", "content": None}))
        if outcome.call is None:
            return role
        self._has_call = True
        calls = [{"index": 0, **_function_call(outcome, arguments="")}]
        return role + event(self._chunk({"tool_calls": calls}))

    def piece(self, text: str) -> bytes:
        """Return the chunk of one piece."""
        if self._has_call:
            calls = [{"index": 0, "function": {"arguments": text}}]
            return event(self._chunk({"tool_calls": calls}))
        return event(self._chunk({"content": text}))

    def end(self, outcome: Outcome) -> Sequence[bytes]:
        """Return the finishing chunk, with timings, or a usage chunk that has them."""
        last = self._chunk({}, outcome.finish)
        if not self._with_usage:
            return event({**last, "timings": outcome.timings()}), DONE
        totals = {"usage": outcome.usage(), "timings": outcome.timings()}
        return event(last) + event({**last, "choices": [], **totals}), DONE

    def whole(self, outcome: Outcome) -> Json:
        """Return a ``chat.completion``."""
        message: Json = {"role": "assistant", "content": outcome.text}
        if outcome.call is not None:
            calls = [_function_call(outcome, arguments=outcome.text)]
            message |= {"content": None, "tool_calls": calls}
        return {
            "choices": [{"finish_reason": outcome.finish, "index": 0, "message": message}],
            **self._common,
            "object": "chat.completion",
            "usage": outcome.usage(),
            "timings": outcome.timings(),
        }


class Text:
    """``/v1/completions``."""

    def __init__(self, model: str, body: Json) -> None:
        self._common = {
            "created": int(time.time()),
            "model": model,
            "system_fingerprint": FINGERPRINT,
            "object": "text_completion",
            "id": f"cmpl-{_unique()}",
        }

    def _value(self, text: str, finish: str | None, totals: Json) -> Json:
        choice = {"text": text, "index": 0, "logprobs": None, "finish_reason": finish}
        return {"choices": [choice], **self._common, **totals}

    def start(self, outcome: Outcome) -> bytes:
        """Return nothing: completions begin with their text."""
        return b""

    def piece(self, text: str) -> bytes:
        """Return the chunk of one piece."""
        return event(self._value(text, None, {}))

    def end(self, outcome: Outcome) -> Sequence[bytes]:
        """Return the finishing chunk, with usage and timings."""
        totals = {"usage": outcome.usage(), "timings": outcome.timings()}
        return event(self._value("", outcome.finish, totals)), DONE

    def whole(self, outcome: Outcome) -> Json:
        """Return a ``text_completion``."""
        totals = {"usage": outcome.usage(), "timings": outcome.timings()}
        return self._value(outcome.text, outcome.finish, totals)


class Native:
    """llama.cpp's own ``/completion`` and ``/infill``."""

    def __init__(self, model: str, body: Json) -> None:
        self._model = model

    def start(self, outcome: Outcome) -> bytes:
        """Return nothing."""
        return b""

    def piece(self, text: str) -> bytes:
        """Return the event of one piece."""
        return event({"index": 0, "content": text, "stop": False})

    def end(self, outcome: Outcome) -> Sequence[bytes]:
        """Return the closing event, without text; this format has no ``[DONE]``."""
        return (event({**self.whole(outcome), "content": ""}),)

    def whole(self, outcome: Outcome) -> Json:
        """Return the response, with the slot and its cached tokens."""
        total = outcome.prompt_n + outcome.cache_n + len(outcome.pieces)
        return {
            "index": 0,
            "content": outcome.text,
            "id_slot": outcome.slot,
            "stop": True,
            "stop_type": "eos" if outcome.finish == "stop" else "limit",
            "model": self._model,
            "tokens_predicted": len(outcome.pieces),
            "tokens_evaluated": outcome.prompt_n + outcome.cache_n,
            "tokens_cached": total,
            "timings": outcome.timings(),
        }


class Messages:
    """Anthropic's ``/v1/messages``."""

    def __init__(self, model: str, body: Json) -> None:
        self._model, self._id = model, f"msg_{_unique()}"
        self._has_call = False

    def _message(self, content: list[Json], stop: str | None, usage: Json) -> Json:
        return {
            "id": self._id,
            "type": "message",
            "role": "assistant",
            "content": content,
            "model": self._model,
            "stop_reason": stop,
            "stop_sequence": None,
            "usage": usage,
        }

    @staticmethod
    def _usage(outcome: Outcome) -> Json:
        return {
            "cache_read_input_tokens": outcome.cache_n,
            "input_tokens": outcome.prompt_n,
            "output_tokens": len(outcome.pieces),
        }

    @staticmethod
    def _stop(outcome: Outcome) -> str:
        reasons = {"stop": "end_turn", "tool_calls": "tool_use"}
        return reasons.get(outcome.finish, "max_tokens")

    def start(self, outcome: Outcome) -> bytes:
        """Return the events that open the message and its only block."""
        message = self._message([], None, self._usage(outcome))
        block: Json = {"type": "text", "text": ""}
        if outcome.call is not None:
            self._has_call = True
            block = _tool_use(outcome, {})
        opened = {"type": "content_block_start", "index": 0, "content_block": block}
        return _typed([{"type": "message_start", "message": message}, opened])

    def piece(self, text: str) -> bytes:
        """Return the event of one piece."""
        delta = {"type": "text_delta", "text": text}
        if self._has_call:
            delta = {"type": "input_json_delta", "partial_json": text}
        return _typed([{"type": "content_block_delta", "index": 0, "delta": delta}])

    def end(self, outcome: Outcome) -> Sequence[bytes]:
        """Return the events that close the block and the message."""
        delta = {"stop_reason": self._stop(outcome), "stop_sequence": None}
        closed = {"type": "content_block_stop", "index": 0}
        delta_event = {"type": "message_delta", "delta": delta, "usage": self._usage(outcome)}
        return (_typed([closed, delta_event, {"type": "message_stop"}]),)

    def whole(self, outcome: Outcome) -> Json:
        """Return a ``message``."""
        block: Json = {"type": "text", "text": outcome.text}
        if outcome.call is not None:
            block = _tool_use(outcome, _object(outcome.text))
        return self._message([block], self._stop(outcome), self._usage(outcome))


class Responses:
    """OpenAI's ``/v1/responses``: one text or one tool call."""

    def __init__(self, model: str, body: Json) -> None:
        self._common: Json = {
            "id": f"resp_{_unique()}",
            "object": "response",
            "created_at": int(time.time()),
            "model": model,
            "error": None,
            "incomplete_details": None,
            "instructions": body.get("instructions"),
            "metadata": {},
            "parallel_tool_calls": True,
            "tool_choice": "auto",
            "tools": [],
        }
        self._item_id = f"msg_{_unique()}"
        self._item_place = {"item_id": self._item_id, "output_index": 0}
        self._place = {**self._item_place, "content_index": 0}
        self._sent = 0  # events
        self._has_call = False

    def _events(self, *values: Json) -> bytes:
        numbered = []
        for value in values:
            numbered.append({**value, "sequence_number": self._sent})
            self._sent += 1
        return _typed(numbered)

    def _item(self, status: str, *content: Json) -> Json:
        return {
            "id": self._item_id,
            "type": "message",
            "role": "assistant",
            "status": status,
            "content": list(content),
        }

    def _call(self, outcome: Outcome, status: str, arguments: str) -> Json:
        function = _function_call(outcome, arguments=arguments)
        return {
            "id": self._item_id,
            "type": "function_call",
            "status": status,
            "call_id": function["id"],
            **function["function"],
        }

    def start(self, outcome: Outcome) -> bytes:
        """Return the events that open the response, its only item and the text in it."""
        response = {**self._common, "status": "in_progress", "output": []}
        self._has_call = outcome.call is not None
        is_call = self._has_call
        item = self._call(outcome, "in_progress", "") if is_call else self._item("in_progress")
        opened = self._events(
            {"type": "response.created", "response": response},
            {"type": "response.in_progress", "response": response},
            {"type": "response.output_item.added", "output_index": 0, "item": item},
        )
        if is_call:
            return opened
        part = {"type": "response.content_part.added", **self._place, "part": _output_text("")}
        return opened + self._events(part)

    def piece(self, text: str) -> bytes:
        """Return the event of one piece."""
        if self._has_call:
            kind = "response.function_call_arguments.delta"
            return self._events({"type": kind, **self._item_place, "delta": text})
        kind = "response.output_text.delta"
        return self._events({"type": kind, **self._place, "delta": text, "logprobs": []})

    def end(self, outcome: Outcome) -> Sequence[bytes]:
        """Return the events that close what is open; the last one has the whole response."""
        text, place = outcome.text, self._place
        if outcome.call is not None:
            kind = "response.function_call_arguments.done"
            name = {"name": outcome.call.name, "arguments": text}
            closed: list[Json] = [{"type": kind, **self._item_place, **name}]
        else:
            done = {"type": "response.output_text.done", **place, "text": text, "logprobs": []}
            part = {"type": "response.content_part.done", **place, "part": _output_text(text)}
            closed = [done, part]
        whole = self.whole(outcome)
        item = {"type": "response.output_item.done", "output_index": 0, "item": whole["output"][0]}
        return (self._events(*closed, item, {"type": "response.completed", "response": whole}),)

    def whole(self, outcome: Outcome) -> Json:
        """Return a ``response``."""
        n = outcome.prompt_n + outcome.cache_n
        usage = {
            "input_tokens": n,
            "input_tokens_details": {"cached_tokens": outcome.cache_n, "cache_write_tokens": 0},
            "output_tokens": len(outcome.pieces),
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": n + len(outcome.pieces),
        }
        if outcome.call is not None:
            item = self._call(outcome, "completed", outcome.text)
        else:
            item = self._item("completed", _output_text(outcome.text))
        return {**self._common, "status": "completed", "output": [item], "usage": usage}


def _output_text(text: str) -> Json:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _function_call(outcome: Outcome, *, arguments: str) -> Json:
    assert outcome.call is not None
    function = {"name": outcome.call.name, "arguments": arguments}
    return {"id": f"call_{_call_id(outcome)}", "type": "function", "function": function}


def _tool_use(outcome: Outcome, value: Json) -> Json:
    assert outcome.call is not None
    return {
        "type": "tool_use",
        "id": f"toolu_{_call_id(outcome)}",
        "name": outcome.call.name,
        "input": value,
    }


def _call_id(outcome: Outcome) -> str:
    """Return an id that all events of one generation share."""
    return f"{os.getpid()}_{id(outcome):x}_{outcome.prompt_n}"


def _object(text: str) -> Json:
    """Return the arguments of a call; an object without keys if a limit has cut them."""
    try:
        value: Json = json.loads(text)
    except ValueError:
        return {}
    return value


def _unique() -> str:
    return os.urandom(16).hex()


def _typed(values: Iterable[Json]) -> bytes:
    return b"".join(event(value, value["type"]) for value in values)


MakeDialect = Callable[[str, Json], ApiFormat]
