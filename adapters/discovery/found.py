"""Models that were found, and files that were left out with the reason."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from pathlib import Path

from ...dataclass import dataclass, field
from ..llama_cpp.gguf import Gguf


class Role(enum.Enum):
    """Use of a model; it decides about options of its server."""

    CHAT = "chat"
    EMBEDDING = "embeddings"
    RERANKING = "reranking"


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A model that a server can be started with.

    Attributes:
        path: GGUF file, the first of several parts; or a directory of safetensors.
        name: Name as people know it; not unique.
        full_name: Name with its quantization; empty if it is `name`.
        size: Bytes of all files.
        role: Use of the model.
        head: Metadata of the GGUF file; None for a directory.
        projector: File that makes it see or hear; None without one.
        adapters: LoRA files that belong to it.
        settings: Option of llama-server -> value that the finder knows, such as ``--temp``.
    """

    path: Path
    name: str
    full_name: str = ""
    size: int
    role: Role = Role.CHAT
    head: Gguf | None = None
    projector: Path | None = None
    adapters: tuple[Path, ...] = ()
    settings: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Left:
    """A file or directory that was left out."""

    path: Path
    reason: str


@dataclass(slots=True)
class Found:
    """Result of a search; it grows while the search runs."""

    models: list[Model] = field(default_factory=list)
    left: list[Left] = field(default_factory=list)

    def add(self, other: Found) -> None:
        """Add the result of another search."""
        self.models += other.models
        self.left += other.left

    def leave(self, path: Path, reason: str) -> None:
        """Note that *path* was left out."""
        self.left.append(Left(path, reason))
