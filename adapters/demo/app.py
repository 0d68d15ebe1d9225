"""The demo server's endpoints."""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from . import api_formats
from .api_formats import MakeDialect
from .engine import Engine, Job, Outcome
from .fake_model import Json, chat_tokens, last_user_text, text_of
from .http import DisconnectedError, Exchange, HttpError, whole_number
from .tool_calls import pending

Handler = Callable[[Exchange], Awaitable[None]]
_LOADING = HttpError(503, "Loading model", "unavailable_error")
_IMAGE = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNkYAAAAAYAAjCB0C8AAAAASUVORK5CYII="
)


@dataclass(slots=True, eq=False, kw_only=True)
class App:
    """Serves requests.

    Attributes:
        engine: Generates the text.
        model_path: Path that ``/props`` reports.
        dimensions: Length of embeddings.
        log: Receives one line, without its end.
        is_loading: Every request gets 503.
        is_hung: No request gets a response, and connections stay open.
        is_asleep: Between ``/sleep`` and ``/wake_up``, as with vLLM: no generation.
        in_flight: Number of requests without a complete response.
        idle: Called when the last of them ends.
    """

    engine: Engine
    model_path: str
    dimensions: int
    log: Callable[[str], None]
    is_loading: bool = True
    is_hung: bool = False
    is_asleep: bool = False
    in_flight: int = 0
    idle: Callable[[], None] = lambda: None

    async def serve(self, exchange: Exchange) -> None:
        """Serve one request."""
        began = time.perf_counter()
        self.in_flight += 1
        try:
            await self._answer(exchange)
        except HttpError as error:
            if exchange.status:
                raise DisconnectedError from error
            await exchange.send_json(error.value(), status=error.status)
        finally:
            self.in_flight -= 1
            ms = (time.perf_counter() - began) * 1000
            status = exchange.status or "cancelled"
            self.log(f"srv  request: {exchange.method} {exchange.target} {status} {ms:.1f} ms")
            if not self.in_flight:
                self.idle()

    async def _answer(self, exchange: Exchange) -> None:
        if self.engine.stopping.is_set():
            raise DisconnectedError  # the next request of a kept connection: never served
        if self.is_hung:
            with exchange.watched():
                await asyncio.get_running_loop().create_future()
        if exchange.path == "/" and exchange.method in ("GET", "HEAD"):
            return await self._page(exchange)
        if self.is_loading:
            raise _LOADING
        await self._handler(exchange)(exchange)
        return None

    def _handler(self, exchange: Exchange) -> Handler:
        path, method = exchange.path, exchange.method
        if path.partition("/echo")[0] == "":
            return self._echo
        if method == "OPTIONS":
            return self._preflight
        if path == "/ws" and "websocket" in exchange.header("upgrade").lower():
            return self._websocket
        table = _GET if method in ("GET", "HEAD") else _POST if method == "POST" else {}
        if path in table:
            return lambda exchange: table[path](self, exchange)
        if method == "POST" and path.startswith("/slots/"):
            return self._act_on_slot
        if method == "POST" and path in _GENERATING:
            return lambda exchange: self._generate(exchange, *_GENERATING[path])
        raise HttpError(404, "File Not Found", "not_found_error")

    # ---- facts ------------------------------------------------------------------
    async def _page(self, exchange: Exchange) -> None:
        if self.is_loading:
            raise HttpError(404, "File Not Found", "not_found_error")
        text = f"<!doctype html><title>{self.engine.model}</title><h1>{self.engine.model}</h1>\n"
        await exchange.send(200, "text/html; charset=utf-8", text.encode())

    async def _health(self, exchange: Exchange) -> None:
        await exchange.send_json({"status": "ok"})

    async def _models(self, exchange: Exchange) -> None:
        model = {
            "id": self.engine.model,
            "aliases": [self.engine.model],
            "object": "model",
            "created": int(time.time()),
            "owned_by": "swapchart-demo",
            "meta": {"n_ctx": self.engine.slots.n_ctx, "n_embd": self.dimensions},
        }
        await exchange.send_json({"object": "list", "data": [model]})

    async def _props(self, exchange: Exchange) -> None:
        slots = self.engine.slots
        await exchange.send_json(
            {
                "default_generation_settings": {"n_ctx": slots.n_ctx},
                "total_slots": len(slots.all),
                "model_alias": self.engine.model,
                "model_path": self.model_path,
                "build_info": f"swapchart-{api_formats.FINGERPRINT}",
                "is_sleeping": self.is_asleep,
            }
        )

    async def _slots(self, exchange: Exchange) -> None:
        slots = self.engine.slots
        if exchange.query().get("fail_on_no_slot") and all(s.is_processing for s in slots.all):
            raise HttpError(503, "no slot available", "unavailable_error")
        values = []
        for slot in slots.all:
            value: Json = {
                "id": slot.number,
                "n_ctx": slots.n_ctx,
                "speculative": False,
                "is_processing": slot.is_processing,
            }
            if slot.task is not None:
                value["id_task"] = slot.task
                value["n_prompt_tokens"] = slot.prompt_n
                value["n_prompt_tokens_processed"] = slot.prompt_n - slot.cache_n
                value["n_prompt_tokens_cache"] = slot.cache_n
            values.append(value)
        await exchange.send_json(values)

    async def _metrics(self, exchange: Exchange) -> None:
        engine = self.engine
        busy = sum(slot.is_processing for slot in engine.slots.all)
        text = (
            "# TYPE llamacpp:prompt_tokens_total counter\n"
            f"llamacpp:prompt_tokens_total {engine.prompted}\n"
            "# TYPE llamacpp:tokens_predicted_total counter\n"
            f"llamacpp:tokens_predicted_total {engine.predicted}\n"
            "# TYPE llamacpp:requests_processing gauge\n"
            f"llamacpp:requests_processing {busy}\n"
        )
        await exchange.send(200, "text/plain; version=0.0.4", text.encode())

    # ---- slots and sleep ----------------------------------------------------------
    async def _act_on_slot(self, exchange: Exchange) -> None:
        text = exchange.path.removeprefix("/slots/")
        if not text.removeprefix("-").isdecimal():
            raise HttpError(400, "Invalid slot ID")
        body = await exchange.json_body()
        action = exchange.query().get("action", "")
        with exchange.watched():
            value = await self.engine.slots.act(int(text), action, body.get("filename"))
        self.log(f"slot {action}: {value}")
        await exchange.send_json(value)

    async def _sleep(self, exchange: Exchange) -> None:
        for slot in self.engine.slots.all:
            slot.tokens = []  # as in real servers, sleep loses the cache
        self.is_asleep = True
        await exchange.send_json({})

    async def _wake_up(self, exchange: Exchange) -> None:
        self.is_asleep = False
        await exchange.send_json({})

    async def _is_sleeping(self, exchange: Exchange) -> None:
        await exchange.send_json({"is_sleeping": self.is_asleep})

    # ---- generating ---------------------------------------------------------------
    async def _generate(
        self,
        exchange: Exchange,
        make: MakeDialect,
        prompt_of: Callable[[Json], tuple[list[str], str]],
    ) -> None:
        body = await exchange.json_body()
        prompt, asked = prompt_of(body)
        if self.is_asleep:
            raise HttpError(503, "the model is asleep", "unavailable_error")
        job = _job(body, prompt, asked)
        api_format, engine = make(self.engine.model, body), self.engine

        async def started(outcome: Outcome) -> None:
            n, cached = outcome.prompt_n + outcome.cache_n, outcome.cache_n
            self.log(f"slot launch: id {outcome.slot} | prompt {n} tokens, {cached} cached")
            if not body.get("stream"):
                return
            await exchange.start_stream("text/event-stream")
            if first := api_format.start(outcome):
                await exchange.stream(first)

        async def emit(piece: str) -> None:
            if body.get("stream"):
                await exchange.stream(api_format.piece(piece))

        with exchange.watched():
            outcome = await engine.run(job, started=started, emit=emit)
        if not body.get("stream"):
            return await exchange.send_json(api_format.whole(outcome))
        for chunk in api_format.end(outcome):
            await exchange.stream(chunk)
        return await exchange.end_stream()

    async def _count_tokens(self, exchange: Exchange) -> None:
        prompt, _ = _from_messages(await exchange.json_body())
        await exchange.send_json({"input_tokens": len(prompt)})

    # ---- other media; imported on first use, for a fast start -----------------------
    async def _embeddings(self, exchange: Exchange) -> None:
        from . import media

        body = await exchange.json_body()
        await exchange.send_json(media.embeddings(self.engine.model, body, self.dimensions))

    async def _rerank(self, exchange: Exchange) -> None:
        from . import media

        await exchange.send_json(media.rerank(self.engine.model, await exchange.json_body()))

    async def _tokenize(self, exchange: Exchange) -> None:
        from . import media

        await exchange.send_json(media.tokenize(await exchange.json_body()))

    async def _form(self, exchange: Exchange) -> None:
        from . import media

        parts = media.parse_form(exchange.header("content-type"), await exchange.body())
        value = media.describe_form(self.engine.model, parts)
        if exchange.path.startswith("/v1/images/"):
            value |= {"created": int(time.time()), "data": [{"b64_json": _IMAGE}]}
        await exchange.send_json(value)

    async def _image(self, exchange: Exchange) -> None:
        body = await exchange.json_body()
        n = whole_number(body.get("n"), "n", 1)
        images = [{"b64_json": _IMAGE, "revised_prompt": body.get("prompt")}] * n
        await exchange.send_json({"created": int(time.time()), "data": images})

    async def _speech(self, exchange: Exchange) -> None:
        from . import media

        body = await exchange.json_body()
        await exchange.send(200, "audio/wav", media.speech(str(body.get("input", ""))))

    async def _websocket(self, exchange: Exchange) -> None:
        from . import websocket

        await websocket.serve_echo(exchange)

    # ---- for tests of proxies ---------------------------------------------------------
    async def _echo(self, exchange: Exchange) -> None:
        """Return the request as JSON; ``?status=`` and ``?delay_ms=`` control the response."""
        digest, length = hashlib.sha256(), 0
        async for data in exchange.chunks():
            digest.update(data)
            length += len(data)
        query = exchange.query()
        status = whole_number(query.get("status"), "status", 200)
        if not 200 <= status <= 599:
            raise HttpError(400, f"expected status to be 200..599, got {status}")
        with exchange.watched():
            await asyncio.sleep(whole_number(query.get("delay_ms"), "delay_ms", 0) / 1000)
        value = {
            "method": exchange.method,
            "target": exchange.target,
            "version": exchange.version,
            "headers": [list(pair) for pair in exchange.headers],
            "body": {"sha256": digest.hexdigest(), "length": length},
            "model": self.engine.model,
            "pid": os.getpid(),
        }
        await exchange.send_json(value, status=status)

    async def _preflight(self, exchange: Exchange) -> None:
        allow = [
            ("Access-Control-Allow-Methods", "GET, POST"),
            ("Access-Control-Allow-Headers", "*"),
        ]
        await exchange.send(200, "text/html", b"", headers=allow)


def _from_messages(body: Json) -> tuple[list[str], str]:
    messages = body.get("messages")
    if not isinstance(messages, list) or not all(isinstance(m, dict) for m in messages):
        raise HttpError(400, '"messages" is required and has to be a list of objects')
    system = body.get("system")  # Anthropic's place for the system prompt
    opened = [{"role": "system", "content": system}] if system else []
    return chat_tokens([*opened, *messages]), last_user_text(messages)


def _from_prompt(body: Json) -> tuple[list[str], str]:
    prompt = body.get("prompt")
    if not isinstance(prompt, str | list):
        raise HttpError(400, '"prompt" is required: a text or a list')
    text = text_of(prompt)
    return text.split() or ["<s>"], text


def _from_infill(body: Json) -> tuple[list[str], str]:
    before, after = str(body.get("input_prefix", "")), str(body.get("input_suffix", ""))
    return ["<fim_prefix>", *before.split(), "<fim_suffix>", *after.split(), "<fim_middle>"], before


def _from_input(body: Json) -> tuple[list[str], str]:
    given = body.get("input")
    if isinstance(given, str):
        given = [{"role": "user", "content": given}]
    return _from_messages({"messages": given, "system": body.get("instructions")})


def _job(body: Json, prompt: list[str], asked: str) -> Job:
    names = ("max_completion_tokens", "max_tokens", "max_output_tokens", "n_predict")
    given = next((body[name] for name in names if body.get(name) is not None), None)
    limit = whole_number(given, "the limit of tokens", -1)
    number = whole_number(body.get("id_slot"), "id_slot", -1)
    given_messages = body.get("messages", body.get("input"))
    call, result = pending(body, given_messages) if isinstance(given_messages, list) else (None, "")
    return Job(
        prompt=prompt,
        asked=asked,
        limit=None if limit < 0 else limit,
        is_endless=bool(body.get("ignore_eos")),
        is_cached=bool(body.get("cache_prompt", True)),
        number=None if number < 0 else number,
        call=call,
        result=result,
    )


_GET: dict[str, Callable[[App, Exchange], Awaitable[None]]] = {
    "/health": App._health,
    "/v1/health": App._health,
    "/v1/models": App._models,
    "/models": App._models,
    "/props": App._props,
    "/slots": App._slots,
    "/metrics": App._metrics,
    "/is_sleeping": App._is_sleeping,
}
_POST: dict[str, Callable[[App, Exchange], Awaitable[None]]] = {
    "/v1/embeddings": App._embeddings,
    "/v1/rerank": App._rerank,
    "/rerank": App._rerank,
    "/v1/reranking": App._rerank,
    "/tokenize": App._tokenize,
    "/v1/messages/count_tokens": App._count_tokens,
    "/v1/audio/transcriptions": App._form,
    "/v1/images/edits": App._form,
    "/v1/images/generations": App._image,
    "/v1/audio/speech": App._speech,
    "/sleep": App._sleep,
    "/wake_up": App._wake_up,
}
_GENERATING: dict[str, tuple[MakeDialect, Callable[[Json], tuple[list[str], str]]]] = {
    "/v1/chat/completions": (api_formats.Chat, _from_messages),
    "/chat/completions": (api_formats.Chat, _from_messages),
    "/v1/completions": (api_formats.Text, _from_prompt),
    "/completion": (api_formats.Native, _from_prompt),
    "/infill": (api_formats.Native, _from_infill),
    "/v1/messages": (api_formats.Messages, _from_messages),
    "/v1/responses": (api_formats.Responses, _from_input),
}
