"""Programs of this machine that serve models."""

from __future__ import annotations

import shutil
from collections.abc import Callable

from ...dataclass import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Engines:
    """Programs that were found, as they are written into commands; None where there is none.

    Attributes:
        llama_server: Program that serves GGUF files.
        vllm: Program that serves directories of safetensors.
    """

    llama_server: str | None = None
    vllm: str | None = None


def find_engines(which: Callable[[str], str | None] = shutil.which) -> Engines:
    """Look for engines in PATH.

    A program is written into commands by its name, not its path, so that an update by the package
    manager does not break them.
    """
    return Engines(
        llama_server="llama-server" if which("llama-server") else None,
        vllm="vllm" if which("vllm") else None,
    )
