"""Client for the slots of a running llama-server.

Slot numbers wrap (``/slots/99`` acts on a real slot), so their number comes from ``/props``. A save
or restore of a busy slot waits until it is idle. After a restore ``/slots`` does not show it until
the slot's first request; only the response of the restore, and later ``timings.cache_n``, do.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from .slots import Slot, SlotError, SlotTransfer

if TYPE_CHECKING:
    import httpx

_LONGEST_BODY = 2 << 20  # hostile JSON of this size takes 80 ms to parse
_UNPACKED = {"accept-encoding": "identity"}  # no small response that is large when unpacked
_LARGEST = 10**15  # limit of tokens and bytes
_MOST_SLOTS = 1 << 16
_KEY_WANTED = frozenset({401, 403})


class SlotClient:
    """Connection to one server; an asynchronous context manager.

    Args:
        endpoint: Base URL.
        api_key: Bearer token, if the server needs one.
        timeout_s: Limit for connecting, and between two bytes; the caller sets the overall limit.
    """

    def __init__(self, endpoint: str, *, api_key: str | None = None, timeout_s: float) -> None:
        import httpx

        headers = {"authorization": f"Bearer {api_key}"} if api_key else {}
        self._errors = httpx.HTTPError
        self._client: httpx.AsyncClient = httpx.AsyncClient(
            base_url=endpoint, headers=headers, timeout=timeout_s, trust_env=False,
            follow_redirects=False, verify=endpoint.startswith("https"),
        )  # fmt: skip

    async def __aenter__(self) -> Self:
        """Return the client; the first call connects."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        """Close the connection."""
        await self._client.aclose()

    async def props(self) -> dict[str, Any] | None:
        """Return ``/props``, or None if this is not a llama-server.

        Raises:
            SlotError: It needs a key that is unknown.
            OSError: It does not respond.
        """
        status, value = await self._call("GET", "/props")
        if status in _KEY_WANTED:
            raise SlotError("GET /props", status, _detail(value))
        if status != 200 or not isinstance(value, dict):
            return None
        try:
            value["total_slots"] = whole(value.get("total_slots"), _MOST_SLOTS)
        except ValueError:
            return None
        if not isinstance(value.get("default_generation_settings"), dict):
            value["default_generation_settings"] = {}
        return value

    async def adapters(self) -> str:
        """Return the LoRA adapters and their scales as JSON; empty without adapters."""
        status, value = await self._call("GET", "/lora-adapters")
        return json.dumps(value, sort_keys=True) if status == 200 and value else ""

    @staticmethod
    def warm_up() -> None:
        """Import what the first use needs, which takes 0.3 s; blocks."""
        import h11  # noqa: F401
        import httpcore
        import httpx

        httpx.AsyncClient(trust_env=False, verify=False)
        httpcore.AnyIOBackend()

    @staticmethod
    def lora_of(params: object) -> str:
        """Return the adapters in *params* of a request, as JSON; none if *params* is invalid."""
        lora = params.get("lora") if isinstance(params, dict) else None
        return json.dumps(lora or [], sort_keys=True)

    async def slots(self) -> list[Slot]:
        """Return all slots.

        Raises:
            SlotError: It does not report them (``--no-slots``).
            OSError: It does not respond.
        """
        status, value = await self._call("GET", "/slots")
        if status != 200 or not isinstance(value, list):
            raise SlotError("GET /slots", status, _detail(value))
        return [
            Slot(
                number=number,
                was_used="id_task" in item and item["id_task"] != -1,
                is_busy=bool(item.get("is_processing")),
                tokens=_whole_or_none(item.get("n_prompt_tokens")),
                lora=self.lora_of(item.get("params") or {}),
                task=_whole_or_none(item.get("id_task")),
            )
            for number, item in enumerate(value)
            if isinstance(item, dict)
        ]

    async def save(self, number: int, filename: str) -> SlotTransfer:
        """Save slot *number*; raises as `restore`."""
        return await self._move(number, "save", filename, "n_saved", "n_written")

    async def restore(self, number: int, filename: str) -> SlotTransfer:
        """Restore slot *number*.

        Raises:
            SlotError: The server refused; the slot is empty then.
            OSError: It does not respond: the restore may have crashed it.
        """
        return await self._move(number, "restore", filename, "n_restored", "n_read")

    async def erase(self, number: int) -> None:
        """Empty slot *number*; raises as `restore`."""
        status, value = await self._call("POST", f"/slots/{number}?action=erase", {})
        if status != 200:
            raise SlotError(f"erase of slot {number}", status, _detail(value))

    async def _move(
        self, number: int, action: str, filename: str, tokens: str, size: str
    ) -> SlotTransfer:
        began = time.perf_counter()
        target = f"/slots/{number}?action={action}"
        status, value = await self._call("POST", target, {"filename": filename})
        what = f"{action} of slot {number}"
        if status != 200:
            raise SlotError(what, status, _detail(value))
        try:
            ms = (time.perf_counter() - began) * 1000
            return SlotTransfer(
                tokens=whole(value[tokens]), size=whole(value[size]), ms=ms,
                stall_ms=_stall_ms(value, f"{action}_ms", ms),
            )  # fmt: skip
        except (KeyError, TypeError, ValueError) as error:
            raise SlotError(what, status, f"unexpected response {value!r:.200}") from error

    async def _call(
        self, method: str, target: str, value: Mapping[str, Any] | None = None
    ) -> tuple[int, Any]:
        try:
            stream = self._client.stream(method, target, json=value, headers=_UNPACKED)
            async with stream as response:
                body = bytearray()
                async for piece in response.aiter_raw():
                    body += piece
                    if len(body) > _LONGEST_BODY:
                        raise ConnectionError(f"{method} {target}: the response is too long")
        except self._errors as error:
            raise ConnectionError(f"{method} {target}: {type(error).__name__} {error}") from error
        try:
            return response.status_code, json.loads(body)
        except (ValueError, RecursionError):
            return response.status_code, body[:500].decode("utf-8", "replace")


def whole(value: object, limit: int = _LARGEST) -> int:
    """Return *value*, a number that a server reported, as an integer from 0 to *limit*.

    Raises:
        ValueError: It is not such a number.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= limit:
        raise ValueError(f"expected a number from 0 to {limit}, got {value!r:.40}")
    return int(value)


def _stall_ms(value: Mapping[str, Any], name: str, ms: float) -> float:
    """Return the duration that the server reports, at most *ms*."""
    timings = value.get("timings")
    found = timings.get(name) if isinstance(timings, dict) else None
    if isinstance(found, bool) or not isinstance(found, int | float) or not 0 <= found <= ms:
        return ms
    return float(found)


def _whole_or_none(value: object) -> int | None:
    try:
        return whole(value)
    except ValueError:
        return None


def _detail(value: object) -> str:
    if isinstance(value, dict) and isinstance(value.get("error"), dict):
        return str(value["error"].get("message", ""))
    return str(value)[:200]
