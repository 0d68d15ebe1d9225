"""Keys of KV caches that survive their process."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from ...system.sizes import bytes_of
from .fields import Count, Seconds
from .section import BeforeValidator, Field, Section, WithJsonSchema, refuse


def _as_bytes(value: object) -> object:
    if not isinstance(value, str):
        return value
    found = bytes_of(value)
    if found is None:
        raise refuse("expected a size such as 20GiB or 512MiB, or a number of bytes")
    return found


#: A size with a unit, or a number of bytes; > 0.
Bytes: TypeAlias = Annotated[
    int, BeforeValidator(_as_bytes), Field(gt=0),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "pattern": r"^\d+(\.\d+)?\s*(B|[kKMGT]i?B)$"},
                {"type": "integer", "exclusiveMinimum": 0},
            ]
        }
    ),
]  # fmt: skip


def _as_checkpoint(value: object) -> object:
    if isinstance(value, bool):
        return "auto" if value else "off"
    return value


class Kv(Section):
    """KV cache that survives the process; ages and times in seconds."""

    mode: Literal["keep", "engine", "off"] = "keep"
    """`keep` saves the slots of llama-server before a stop and restores them after a start;
    `engine` says that the engine keeps its caches itself.

    Example: `mode: keep`
    """
    checkpoint: Annotated[
        Literal["auto", "off"],
        BeforeValidator(_as_checkpoint, json_schema_input_type=Literal["auto", "off"]),
    ] = "off"
    """`auto` also saves slots while the server has nothing to do. Example: `checkpoint: auto`"""
    write_budget: Bytes = 10 << 30
    """Most bytes that checkpoints and the library write in an hour. Example: `writeBudget: 20GiB`
    """
    library: Bytes | None = None
    """Size of a library of conversations on the disk. Example: `library: 20GiB`"""
    dir: str | None = None
    """Directory of the files as swapchart sees it; by default the server's `--slot-save-path`.

    Example: `dir: /var/cache/kv`
    """
    manage_args: bool = False
    """Add `--slot-save-path` to the command if it is missing. Example: `manageArgs: true`"""
    max_bytes: Bytes | None = None
    """Most bytes of all files; the least valuable are removed first.

    Example: `maxBytes: 10GiB`
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
    Kv, BeforeValidator(_as_kv, json_schema_input_type=Literal["keep", "engine", "off"] | Kv)
]
