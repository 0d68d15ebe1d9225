"""Facts about the model files of llama-server, for clients of Ollama's API.

They are read in a thread after the start and after each reload, so that no request waits for a
disk; until then they are unknown.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...config import Config, ModelConfig
from ...llama_cpp.gguf import Gguf, GgufError, read_gguf, shards
from ...llama_cpp.launch_args import LaunchLine
from ...system import threads

#: llama.cpp, include/llama.h, llama_ftype.
_QUANTIZATIONS = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 10: "Q2_K",
    11: "Q3_K_S", 12: "Q3_K_M", 13: "Q3_K_L", 14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S",
    17: "Q5_K_M", 18: "Q6_K", 19: "IQ2_XXS", 20: "IQ2_XS", 21: "Q2_K_S", 22: "IQ3_XS",
    23: "IQ3_XXS", 24: "IQ1_S", 25: "IQ4_NL", 26: "IQ3_S", 27: "IQ3_M", 28: "IQ2_S", 29: "IQ2_M",
    30: "IQ4_XS", 31: "IQ1_M", 32: "BF16", 38: "MXFP4",
}  # fmt: skip


class ModelFileFacts:
    """Facts of all models of a configuration."""

    def __init__(self) -> None:
        self._found: dict[str, dict[str, Any]] = {}

    def of(self, name: str) -> dict[str, Any] | None:
        """Return the fields of a ``FileFacts`` for the model *name*; None if nothing is known."""
        return self._found.get(name)

    async def read(self, config: Config) -> None:
        """Read the facts of all models of *config*."""
        self._found = await threads.run(read_all, config)


def read_all(config: Config) -> dict[str, dict[str, Any]]:
    """Return the facts of each model of *config* whose command is that of a llama-server."""
    found = {name: _facts(model) for name, model in config.models.items()}
    return {name: facts for name, facts in found.items() if facts}


def _facts(model: ModelConfig) -> dict[str, Any]:
    line = LaunchLine.parse(model.argv)
    if model.nodes is not None or not line.is_llama_server:
        return {}
    facts: dict[str, Any] = {
        "is_embedding": line.has("--embedding", "--embeddings"),
        "has_vision": line.has("--mmproj"),
    }
    path = line.value("--model")
    head = Gguf()
    if path is not None:
        try:
            parts = shards(Path(path))
            head = read_gguf(parts[0])
            facts["size"] = sum(part.stat().st_size for part in parts)
        except (OSError, GgufError):
            head = Gguf()
    if head.architecture:
        facts["architecture"] = head.architecture
        facts["parameter_size"] = _parameters(head)
        kind = head.values.get("general.file_type")
        facts["quantization"] = _QUANTIZATIONS.get(kind, "") if isinstance(kind, int) else ""
    slots = max(1, _number(line.value("--parallel")))
    facts["context"] = _number(line.value("--ctx-size")) // slots or head.number("context_length")
    return facts


def _parameters(head: Gguf) -> str:
    label = head.values.get("general.size_label")
    return label if isinstance(label, str) else ""


def _number(text: str | None) -> int:
    return int(text) if text is not None and text.isdecimal() and len(text) < 10 else 0
