"""Slots of the demo server: their queue, their caches, and slot files.

As in llama-server, a request goes to the idle slot that shares the longest prefix with it, else
to the least recently used one; if none is idle, it waits. Slot numbers wrap. A truncated file
aborts the process, because the real server does so and a supervisor must cope with it.

A file begins like llama.cpp's, with the tokens as numbers (here made from their text). The rest is
our own: a line of JSON (magic, model, number of tokens and of bytes), then the tokens as JSON.
"""

from __future__ import annotations

import asyncio
import json
import os
import struct
import time
import zlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from .fake_model import Json, common_prefix
from .http import HttpError

_LLAMA_MAGIC, _LLAMA_VERSION = 0x67677371, 2
_MAGIC = "swapchart-demo-slot-2"
_SIMILARITY = 0.1
_NOT_RESTORED = "Unable to restore slot: No available space in KV cache or invalid slot save file"


@dataclass(slots=True, eq=False, kw_only=True)
class Slot:
    """A slot to generate in.

    Attributes:
        number: Number of the slot, from 0.
        tokens: Cached tokens, oldest first.
        is_processing: A request holds it.
        used: Grows with each use of any slot; 0 means never used.
        task: Number of the last generation; None before the first.
        prompt_n: Prompt tokens of the last generation.
        cache_n: Cached ones among them.
        is_hollow: The restored cache is not used, as with a sliding window.
    """

    number: int
    tokens: list[str] = field(default_factory=list)
    is_processing: bool = False
    used: int = 0
    task: int | None = None
    prompt_n: int = 0
    cache_n: int = 0
    is_hollow: bool = False

    def cached(self, prompt: Sequence[str]) -> int:
        """Return how many tokens of *prompt* are cached here."""
        return 0 if self.is_hollow else common_prefix(self.tokens, prompt)


@dataclass(slots=True, eq=False)
class _Waiter:
    prompt: Sequence[str]
    number: int | None
    granted: asyncio.Future[Slot]


class Slots:
    """All slots of one server, and the queue for them.

    Attributes:
        model: Written into files; a file of another model is rejected.
        n_ctx: Tokens that fit into one slot.
    """

    def __init__(
        self, *, count: int, n_ctx: int, model: str, directory: Path | None, is_robust: bool,
        is_forgetful: bool = False,
    ) -> None:  # fmt: skip
        self.all = [Slot(number=number) for number in range(count)]
        self.n_ctx, self.model = n_ctx, model
        self._directory, self._is_robust = directory, is_robust
        self._is_forgetful = is_forgetful
        self._waiters: list[_Waiter] = []
        self._clock = 0

    @asynccontextmanager
    async def hold(self, prompt: Sequence[str], number: int | None) -> AsyncIterator[Slot]:
        """Wait for a slot, in turn, and hold it.

        Args:
            prompt: Tokens of which the slot should have many cached.
            number: Slot to use, modulo their count; None takes the best idle one.
        """
        slot = await self._acquire(prompt, number)
        try:
            yield slot
        finally:
            slot.is_processing = False
            self._grant()

    async def _acquire(self, prompt: Sequence[str], number: int | None) -> Slot:
        granted: asyncio.Future[Slot] = asyncio.get_running_loop().create_future()
        waiter = _Waiter(prompt, number, granted)
        self._waiters.append(waiter)
        self._grant()
        try:
            return await granted
        except asyncio.CancelledError:
            if waiter in self._waiters:
                self._waiters.remove(waiter)
            if granted.done() and not granted.cancelled():
                granted.result().is_processing = False
                self._grant()
            raise

    def _grant(self) -> None:
        for waiter in list(self._waiters):
            slot = self._select(waiter)
            if slot is None:
                continue
            self._waiters.remove(waiter)
            self._clock += 1
            slot.is_processing, slot.used = True, self._clock
            waiter.granted.set_result(slot)

    def _select(self, waiter: _Waiter) -> Slot | None:
        slots = self.all if waiter.number is None else [self.all[waiter.number % len(self.all)]]
        idle = [slot for slot in slots if not slot.is_processing]
        if not idle:
            return None
        best = max(idle, key=lambda slot: slot.cached(waiter.prompt))
        if best.cached(waiter.prompt) > _SIMILARITY * len(waiter.prompt):
            return best
        return min(idle, key=lambda slot: slot.used)

    async def act(self, number: int, action: str, filename: object) -> Json:
        """Save, restore or erase a slot once it is idle; return the JSON value of the response.

        Raises:
            HttpError: The action or the file is invalid, or there is no directory to save to.
        """
        if self._directory is None:
            note = "This server does not support slots action. Start it with `--slot-save-path`"
            raise HttpError(501, note, "not_supported_error")
        if action not in ("save", "restore", "erase"):
            raise HttpError(400, "Invalid action")
        path = self._directory if action == "erase" else self._directory / _checked(filename)
        async with self.hold((), number) as slot:
            if action == "erase":
                done: Json = {"n_erased": len(slot.tokens)}
                slot.tokens = []
            elif action == "save":
                done = self._save(slot, path)
            else:
                done = self._restore(slot, path)
        return {"id_slot": number, **done}  # the number of the request, before it wraps

    def _save(self, slot: Slot, path: Path) -> Json:
        began = time.perf_counter()
        payload = json.dumps(slot.tokens).encode()
        head = {"magic": _MAGIC, "model": self.model, "n": len(slot.tokens), "size": len(payload)}
        data = _numbers(slot.tokens) + json.dumps(head).encode() + b"\n" + payload
        try:
            path.write_bytes(data)
        except OSError as error:
            raise HttpError(
                500, f"Unable to save slot: {error.strerror}", "server_error"
            ) from error
        return {
            "filename": path.name,
            "n_saved": len(slot.tokens),
            "n_written": len(data),
            "timings": {"save_ms": _ms_since(began)},
        }

    def _restore(self, slot: Slot, path: Path) -> Json:
        began = time.perf_counter()
        slot.tokens = []  # a failed restore leaves the slot empty
        try:
            data = path.read_bytes()
            head, payload = _split(data)
        except (OSError, ValueError) as error:
            raise HttpError(400, _NOT_RESTORED) from error
        if head["model"] != self.model or head["n"] > self.n_ctx:
            raise HttpError(400, _NOT_RESTORED)
        if len(payload) < head["size"] and not self._is_robust:
            os.abort()
        try:
            slot.tokens = json.loads(payload)
        except ValueError as error:
            raise HttpError(400, _NOT_RESTORED) from error
        slot.is_hollow = self._is_forgetful
        return {
            "filename": path.name,
            "n_restored": len(slot.tokens),
            "n_read": len(data),
            "timings": {"restore_ms": _ms_since(began)},
        }


def _checked(filename: object) -> str:
    if not isinstance(filename, str):
        raise HttpError(400, "expected a text in filename")
    if not 0 < len(filename) <= 255 or "/" in filename or ".." in filename or "\0" in filename:
        raise HttpError(400, "Invalid filename")
    return filename


def _numbers(tokens: Sequence[str]) -> bytes:
    """Return *tokens* in llama.cpp's format: -1, a version, their number, then the tokens."""
    words = [-1, 1, len(tokens), *(zlib.crc32(token.encode()) >> 1 for token in tokens), 0]
    return struct.pack(f"<III{len(words)}i", _LLAMA_MAGIC, _LLAMA_VERSION, len(words), *words)


def _split(data: bytes) -> tuple[Json, bytes]:
    try:
        magic, _, count = struct.unpack_from("<III", data)
    except struct.error as error:
        raise ValueError("not a slot file") from error
    if magic != _LLAMA_MAGIC:
        raise ValueError("not a slot file")
    line, _, payload = data[12 + 4 * count :].partition(b"\n")
    head = json.loads(line)
    want = {"magic": str, "model": str, "n": int, "size": int}
    if not isinstance(head, dict) or {name: type(head.get(name)) for name in want} != want:
        raise ValueError("not a slot file")
    if head["magic"] != _MAGIC:
        raise ValueError("a slot file of another version")
    return head, payload


def _ms_since(began: float) -> float:
    return round((time.perf_counter() - began) * 1000, 3)
