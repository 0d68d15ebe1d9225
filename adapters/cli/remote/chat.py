"""`swapchart chat MODEL [PROMPT]`: one question, or a conversation in a terminal."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from collections.abc import Iterator
from http.client import HTTPException, HTTPResponse
from time import monotonic
from typing import Any

from ....dataclass import dataclass, field
from ..output import _fail
from .client import ApiError, Proxy, asking, proxy_of
from .progress import Progress

_DIM, _NORMAL = "\x1b[2m", "\x1b[0m"


@dataclass(slots=True)
class Reply:
    """One response of a model, with the times of its steps.

    Attributes:
        began: When the request was sent, in monotonic seconds, like all times here.
        ready_at: When the model became ready; None if it was before.
        first_at: When the first piece of text came; None before.
        ended_at: When the response was complete.
        usage: Token counts by the model's server.
        timings: Measurements by llama-server.
    """

    began: float
    ready_at: float | None = None
    first_at: float | None = None
    ended_at: float = 0.0
    text: str = ""
    reasoning: str = ""
    finish_reason: str | None = None
    usage: dict[str, Any] = field(default_factory=dict)
    timings: dict[str, Any] = field(default_factory=dict)

    def seconds(self) -> dict[str, float | None]:
        """Return how long the steps took: until ready, then to the first token, and in all."""
        ready = self.began if self.ready_at is None else self.ready_at
        return {
            "ready": round(ready - self.began, 3),
            "first_token": None if self.first_at is None else round(self.first_at - ready, 3),
            "total": round(self.ended_at - self.began, 3),
        }

    def summary(self) -> str:
        """Return the times and rates in one line."""
        seconds = self.seconds()
        parts = [f"ready after {seconds['ready']:.1f} s"] if self.ready_at is not None else []
        if seconds["first_token"] is not None:
            parts.append(f"first token after {seconds['first_token']:.2f} s")
        if prompt := self.usage.get("prompt_tokens"):
            parts.append(f"{prompt} tokens read")
        if (written := self.usage.get("completion_tokens")) is not None:
            rate = self.timings.get("predicted_per_second")
            if rate is None and self.first_at is not None and self.ended_at > self.first_at:
                rate = written / (self.ended_at - self.first_at)
            parts.append(f"{written} written" + (f" at {rate:.1f} tokens/s" if rate else ""))
        return ", ".join([*parts, f"{seconds['total']:.1f} s in all"])


@asking
def chat(options: Namespace) -> int:
    """Print the response of a model as it comes, and its times and rates on standard error."""
    prompt = read_prompt(options)
    if prompt is not None and not prompt.strip():
        return no_prompt("chat")
    return talk(proxy_of(options), options, prompt)


def read_prompt(options: Namespace) -> str | None:
    """Return the prompt: the argument, or what standard input has; None means a conversation."""
    if options.prompt is None and sys.stdin.isatty() and not options.json:
        return None
    given: str | None = options.prompt
    return sys.stdin.read() if given is None else given


def no_prompt(command: str) -> int:
    """Report that the prompt is empty, and return the exit code."""
    _fail(f"{command}: expected a PROMPT, or text on the standard input")
    return 2


def talk(proxy: Proxy, options: Namespace, prompt: str | None) -> int:
    """Ask the model of *options* once, or hold a conversation, and return the exit code.

    Raises:
        ApiError: The only question was not answered.
    """
    messages = [{"role": "system", "content": options.system}] if options.system else []
    if prompt is None:
        return _converse(proxy, options, messages)
    reply = _ask(proxy, options, [*messages, {"role": "user", "content": prompt}])
    if options.json:
        found = {
            "model": options.model, "text": reply.text, "reasoning": reply.reasoning,
            "finish_reason": reply.finish_reason, "usage": reply.usage,
            "timings": reply.timings, "seconds": reply.seconds(),
        }  # fmt: skip
        print(json.dumps(found, indent=2))
    return 0


def _converse(proxy: Proxy, options: Namespace, messages: list[dict[str, str]]) -> int:
    """Ask in turns until the user ends the input; a failed turn is not part of the conversation."""
    import readline  # noqa: F401  # keys for editing in input()

    print("Ctrl-D ends the conversation, Ctrl-C a response.", file=sys.stderr)
    while True:
        try:
            prompt = _input()
        except EOFError:
            print(file=sys.stderr)
            return 0
        if not prompt.strip():
            continue
        asked = [*messages, {"role": "user", "content": prompt}]
        try:
            reply = _ask(proxy, options, asked)
        except ApiError as error:
            _fail(str(error))
            continue
        except KeyboardInterrupt:  # the next one, at the prompt, ends the conversation
            print("\n[interrupted]", file=sys.stderr)
            continue
        messages = [*asked, {"role": "assistant", "content": reply.text}]


def _input() -> str:
    """Return a line of the user; the responses may go to a file, which gets no prompts.

    Raises:
        EOFError: The user has ended the input.
    """
    if sys.stdout.isatty():
        return input("> ")
    print("> ", end="", file=sys.stderr, flush=True)
    return input()


def _ask(proxy: Proxy, options: Namespace, messages: list[dict[str, str]]) -> Reply:
    body: dict[str, Any] = {
        "model": options.model, "messages": messages, "stream": True,
        "stream_options": {"include_usage": True},
    }  # fmt: skip
    if options.max_tokens is not None:
        body["max_tokens"] = options.max_tokens
    reply = Reply(monotonic())
    path = "/v1/chat/completions"
    with Progress(proxy, options.model, is_quiet=options.json) as progress:
        reply.began = monotonic()
        response = proxy.open("POST", path, body, limit_s=None, is_forwarded=True)
        try:
            with response:
                for chunk in _chunks(response):
                    _take(chunk, reply, is_shown=not options.json)
                    progress.is_over = reply.first_at is not None
        except (ApiError, TypeError, AttributeError) as error:
            if reply.text and not options.json:
                print(flush=True)  # the message gets a line of its own
            if isinstance(error, ApiError):
                raise
            raise ApiError(f"the model responded with an unknown chunk: {error}") from error
    reply.ended_at = monotonic()
    if progress.ready_at is not None:  # the event may come a moment after the first token
        reply.ready_at = min(progress.ready_at, reply.first_at or reply.ended_at)
    if not options.json:
        print(flush=True)
        print(f"[{reply.summary()}]", file=sys.stderr, flush=True)
    return reply


def _take(chunk: dict[str, Any], reply: Reply, *, is_shown: bool) -> None:
    reply.usage = chunk.get("usage") or reply.usage
    reply.timings = chunk.get("timings") or reply.timings
    for choice in chunk.get("choices", ())[:1]:
        delta = choice.get("delta", {})
        reply.finish_reason = choice.get("finish_reason") or reply.finish_reason
        thought, text = delta.get("reasoning_content") or "", delta.get("content") or ""
        if text and reply.first_at is None:
            reply.first_at = monotonic()
        if is_shown and thought and sys.stdout.isatty():
            sys.stdout.write(f"{_DIM}{thought}{_NORMAL}")
        if is_shown:
            if text and reply.reasoning and not reply.text and sys.stdout.isatty():
                sys.stdout.write("\n\n")
            sys.stdout.write(text)
            sys.stdout.flush()
        reply.reasoning += thought
        reply.text += text


def _chunks(response: HTTPResponse) -> Iterator[dict[str, Any]]:
    """Yield the values of the events in *response*.

    Raises:
        ApiError: It is an error, no stream of events, or ended too soon.
    """
    try:
        if "event-stream" not in response.headers.get("content-type", ""):
            raise ApiError(f"the model responded with no stream: {response.read(200)!r}")
        while line := response.readline():
            if not line.startswith(b"data:"):
                continue
            data = line[5:].strip()
            if data == b"[DONE]":
                return
            value = json.loads(data)
            if "error" in value:
                error = value["error"]
                raise ApiError(str(error.get("message") if isinstance(error, dict) else error))
            yield value
    except (OSError, HTTPException, ValueError, TypeError, AttributeError) as error:
        raise ApiError(f"the response was cut off: {error}") from error
    raise ApiError("the response was cut off")
