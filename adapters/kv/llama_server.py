"""llama-server as a backend of caches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..system import threads
from .backend import UnsupportedServerError
from .server import LaunchContext, Server
from .slot_client import SlotClient

_CHATS = frozenset({"/v1/chat/completions", "/chat/completions"})
_COMPLETIONS = frozenset({"/v1/completions", "/completions", "/completion"})
_MOST_TOKENS = 1 << 20


class LlamaServer(SlotClient):
    """Connection to one llama-server; see `KvBackend`."""

    async def facts(self, launch: LaunchContext) -> Server:
        """Return the identity of the server.

        Raises:
            UnsupportedServerError: Nothing of it can be kept.
            SlotError: It needs a key that is unknown.
            OSError: It does not respond.
        """
        props = await self.props()
        if props is None:
            raise UnsupportedServerError("foreign", "the server has no /props of a llama-server")
        has_adapters = launch.facts.line.has("--lora", "--lora-scaled")
        adapters = await self.adapters() if has_adapters else ""
        found = await threads.run(launch.facts.learn, props, adapters, launch.settings.allows_swa)
        if isinstance(found, str):
            raise UnsupportedServerError(found, found)
        return Server(
            fingerprint=found, slots=props["total_slots"], lora=_default_lora(props),
            is_asleep=bool(props.get("is_sleeping")),
        )  # fmt: skip

    async def prompt_tokens(self, path: str, body: Mapping[str, Any]) -> Sequence[int] | None:
        """Return the tokens of a prompt, by ``/apply-template`` and ``/tokenize``.

        Raises:
            OSError: It does not respond.
        """
        prompt: object = None
        if path in _CHATS:
            status, value = await self._call("POST", "/apply-template", body)
            prompt = value.get("prompt") if status == 200 and isinstance(value, dict) else None
        elif path in _COMPLETIONS:
            prompt = body.get("prompt")
        if not isinstance(prompt, str):
            return None
        wanted = {"content": prompt, "add_special": True, "parse_special": True}
        status, value = await self._call("POST", "/tokenize", wanted)
        tokens = value.get("tokens") if status == 200 and isinstance(value, dict) else None
        if not isinstance(tokens, list) or len(tokens) > _MOST_TOKENS:
            return None
        return tokens if all(type(token) is int for token in tokens) else None


def _default_lora(props: Mapping[str, Any]) -> str:
    settings = props.get("default_generation_settings") or {}
    return SlotClient.lora_of(settings.get("params") or {})
