"""Text generation: prompt evaluation, a paced stream of words, and timings of both.

It takes as long as an engine would, at rates set on the command line. The cached prefix of a slot
takes no time, so that a client's clock shows whether a cache survived.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field

from .fake_model import reply
from .http import HttpError
from .slots import Slot, Slots
from .tool_calls import ToolCall


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One text to generate.

    Attributes:
        prompt: Tokens, after the template.
        asked: Words that the reply quotes.
        limit: Maximum number of tokens to generate; None means the whole reply.
        is_endless: Never stop before the limit (``ignore_eos``).
        is_cached: Use a cached prefix, and leave one (``cache_prompt``).
        number: Number of the slot to use, or None.
        call: Tool call to generate in place of a reply, or None.
        result: Result of the last tool call, which the reply quotes; may be empty.
    """

    prompt: Sequence[str]
    asked: str
    limit: int | None = None
    is_endless: bool = False
    is_cached: bool = True
    number: int | None = None
    call: ToolCall | None = None
    result: str = ""

    def words(self, model: str) -> Iterable[str]:
        """Return the words to generate as *model*: of the reply, or of the call's arguments."""
        if self.call is not None:
            return self.call.arguments.split(" ")
        return reply(model, self.asked, result=self.result, is_endless=self.is_endless)


@dataclass(slots=True, kw_only=True)
class Outcome:
    """Result of one generation, with its duration.

    Attributes:
        slot: Number of the slot.
        prompt_n: Number of evaluated prompt tokens; >= 1.
        cache_n: Number of cached prompt tokens, which were not evaluated.
        prompt_s: Time of the evaluation; seconds.
        predicted_s: Time of the generation; seconds.
        call: The tool call that the text is the arguments of, or None.
        finish: ``stop`` or ``tool_calls``, or ``length`` at a limit.
        pieces: The text in tokens, with their spaces.
    """

    slot: int
    prompt_n: int
    cache_n: int
    prompt_s: float = 0.0
    predicted_s: float = 0.0
    call: ToolCall | None = None
    finish: str = "stop"
    pieces: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        """The whole text."""
        return "".join(self.pieces)

    def usage(self) -> dict[str, object]:
        """Return the ``usage`` object of OpenAI's shape."""
        prompt_n, predicted_n = self.prompt_n + self.cache_n, len(self.pieces)
        return {
            "completion_tokens": predicted_n,
            "prompt_tokens": prompt_n,
            "total_tokens": prompt_n + predicted_n,
            "prompt_tokens_details": {"cached_tokens": self.cache_n},
        }

    def timings(self) -> dict[str, float]:
        """Return the ``timings`` object of llama-server's shape."""
        return {
            "cache_n": self.cache_n,
            **_rates("prompt", self.prompt_n, self.prompt_s),
            **_rates("predicted", len(self.pieces), self.predicted_s),
        }


def _rates(name: str, n: int, seconds: float) -> dict[str, float]:
    ms = round(seconds * 1000, 3)
    return {
        f"{name}_n": n,
        f"{name}_ms": ms,
        f"{name}_per_token_ms": ms / n if n else 0.0,
        f"{name}_per_second": n / seconds if seconds else 0.0,
    }


@dataclass(slots=True, eq=False, kw_only=True)
class Engine:
    """Generates in slots.

    Attributes:
        model: Name that replies mention.
        slots: Slots to generate in.
        prefill_rate: Prompt tokens per second; 0 means no delay.
        rate: Generated tokens per second; 0 means as fast as the client reads.
        crash_after: Number of generated tokens after which *crash* is called; None means never.
        crash: Ends the process.
        predicted: Number of tokens generated so far, by all requests.
        prompted: Number of prompt tokens evaluated so far.
        stopping: Set on SIGTERM: running generations send nothing more.
    """

    model: str
    slots: Slots
    prefill_rate: float = 0.0
    rate: float = 0.0
    crash_after: int | None = None
    crash: Callable[[], None] = lambda: None
    predicted: int = 0
    prompted: int = 0
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    _tasks: itertools.count[int] = field(default_factory=itertools.count)

    async def run(
        self,
        job: Job,
        *,
        started: Callable[[Outcome], Awaitable[None]],
        emit: Callable[[str], Awaitable[None]],
    ) -> Outcome:
        """Generate *job*'s text.

        Args:
            job: What to generate.
            started: Called once a slot is held, before the prompt is evaluated.
            emit: Called with each piece of text as it is generated.

        Raises:
            HttpError: The prompt does not fit into a slot.
        """
        if len(job.prompt) >= self.slots.n_ctx:
            raise HttpError(
                400,
                f"request ({len(job.prompt)} tokens) exceeds the available context size "
                f"({self.slots.n_ctx} tokens), try increasing it",
                "exceed_context_size_error",
                n_prompt_tokens=len(job.prompt),
                n_ctx=self.slots.n_ctx,
            )
        async with self.slots.hold(job.prompt, job.number) as slot:
            await self._wait_allowed()
            outcome = self._begin(job, slot)
            await started(outcome)
            await self._prefill(job, slot, outcome)
            await self._predict(job, slot, outcome, emit)
        return outcome

    def _begin(self, job: Job, slot: Slot) -> Outcome:
        if not job.is_cached:
            slot.tokens = []
        cached = min(slot.cached(job.prompt), max(len(job.prompt) - 1, 0))
        del slot.tokens[cached:]
        slot.is_hollow = False
        slot.task, slot.prompt_n, slot.cache_n = next(self._tasks), len(job.prompt), cached
        return Outcome(
            slot=slot.number,
            prompt_n=len(job.prompt) - cached,
            cache_n=cached,
            call=job.call,
            finish="tool_calls" if job.call else "stop",
        )

    async def _prefill(self, job: Job, slot: Slot, outcome: Outcome) -> None:
        began = time.perf_counter()
        if self.prefill_rate:
            await asyncio.sleep(outcome.prompt_n / self.prefill_rate)
        await self._wait_allowed()
        slot.tokens = list(job.prompt)
        self.prompted += outcome.prompt_n
        outcome.prompt_s = time.perf_counter() - began

    async def _predict(
        self, job: Job, slot: Slot, outcome: Outcome, emit: Callable[[str], Awaitable[None]]
    ) -> None:
        room = self.slots.n_ctx - len(job.prompt)
        limit = room if job.limit is None else min(room, job.limit)
        began = time.perf_counter()
        for word in job.words(self.model):
            if len(outcome.pieces) >= limit:
                outcome.finish = "length"
                break
            await self._pace(began, len(outcome.pieces) + 1)
            slot.tokens.append(word)
            piece = f" {word}" if outcome.pieces else word
            outcome.pieces.append(piece)
            self.predicted += 1
            await emit(piece)
            if self.crash_after is not None and self.predicted >= self.crash_after:
                self.crash()
        outcome.predicted_s = time.perf_counter() - began

    async def _pace(self, began: float, n: int) -> None:
        """Wait until the *n*-th token is due since the start, so that delays do not add up."""
        due = began + n / self.rate - time.perf_counter() if self.rate else 0.0
        if due > 0 or n % 16 == 0:
            await asyncio.sleep(max(due, 0.0))
        await self._wait_allowed()

    async def _wait_allowed(self) -> None:
        """After SIGTERM, wait until the client disconnects, which cancels this task."""
        if self.stopping.is_set():
            await asyncio.get_running_loop().create_future()
