"""Keys of KV caches that survive their process."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import BeforeValidator, Field

from .fields import Count, Seconds, Section


class Kv(Section):
    """KV cache that survives the process; sizes in bytes, ages and times in seconds."""

    mode: Literal["keep", "off"] = "keep"
    """`keep` saves the slots of llama-server before a stop and restores them after a start.

    Example: `mode: keep`
    """
    dir: str | None = None
    """Directory of the files as swapchart sees it; by default the server's `--slot-save-path`.

    Example: `dir: /var/cache/kv`
    """
    manage_args: bool = False
    """Add `--slot-save-path` to the command if it is missing. Example: `manageArgs: true`"""
    max_bytes: Annotated[int, Field(gt=0)] | None = None
    """Most bytes of all files; the least valuable are removed first.

    Example: `maxBytes: 10000000000`
    """
    max_age: Seconds | None = None
    """Most seconds that a file is kept. Example: `maxAge: 604800`"""
    min_tokens: Count = 256
    """Tokens below which a slot is not saved. Example: `minTokens: 1024`"""
    timeout: Seconds = 10.0
    """Seconds for all saves of a stop, and for all restores of a start. Example: `timeout: 30`"""
    tmpfs: str | None = None
    """Directory in memory where the server saves; copies are kept in `dir`.

    Example: `tmpfs: /dev/shm/kv`
    """
    allow_swa: bool = False
    """Save models with sliding windows too, if the server has `--swa-full`.

    Example: `allowSwa: true`
    """


def _as_kv(value: object) -> object:
    if isinstance(value, bool):
        value = "keep" if value else "off"
    return {"mode": value} if isinstance(value, str) else value


#: A mapping, or its mode alone.
KvText: TypeAlias = Annotated[
    Kv, BeforeValidator(_as_kv, json_schema_input_type=Literal["keep", "off"] | Kv)
]
