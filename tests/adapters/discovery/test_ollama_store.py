"""The store of Ollama: names, files, parameters, and damaged manifests."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from tools.gguf_files import write_gguf

from swapchart.adapters.discovery import Role, find_ollama_models, ollama_stores

KIND = "application/vnd.ollama.image."


def store(folder: Path, manifests: Mapping[str, list[tuple[str, str]] | str]) -> Path:
    """Make a store of *manifests*: path -> kinds and digests of its layers, or its text."""
    for path, layers in manifests.items():
        file = folder / "manifests" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        content: Any = layers
        if not isinstance(layers, str):
            listed = [{"mediaType": KIND + kind, "digest": digest} for kind, digest in layers]
            content = json.dumps({"schemaVersion": 2, "layers": listed})
        file.write_text(content)
    (folder / "blobs").mkdir(exist_ok=True)
    return folder


def test_store_names_are_those_that_ollama_run_takes(tmp_path: Path) -> None:
    """The library and the usual registry are left out of names; a tag stays in them."""
    model = [("model", "sha256:1"), ("template", "sha256:2")]
    place = store(
        tmp_path,
        {
            "registry.ollama.ai/library/llama3.2/latest": model,
            "registry.ollama.ai/library/llama3.2/3b": model,
            "registry.ollama.ai/me/own/latest": model,
            "hf.co/unsloth/Qwen3-GGUF/Q4_K_M": model,
        },
    )
    write_gguf(place / "blobs/sha256-1")

    found = find_ollama_models(place)

    assert sorted((model.name, model.full_name) for model in found.models) == [
        ("hf.co/unsloth/Qwen3-GGUF:Q4_K_M", ""), ("llama3.2", "llama3.2:latest"),
        ("llama3.2:3b", ""), ("me/own", "me/own:latest"),
    ]  # fmt: skip
    assert not found.left


def test_store_projector_adapters_and_parameters_are_taken_over(tmp_path: Path) -> None:
    """Parameters of the Modelfile become options of llama-server."""
    layers = [
        ("model", "sha256:1"), ("projector", "sha256:2"), ("adapter", "sha256:3"),
        ("params", "sha256:4"),
    ]  # fmt: skip
    place = store(tmp_path, {"registry.ollama.ai/library/see/7b": layers})
    write_gguf(place / "blobs/sha256-1", "qwen3")
    for name in "23":
        write_gguf(place / f"blobs/sha256-{name}", "clip")
    parameters = {"num_ctx": 4096, "temperature": 0.6, "stop": ["<eos>"], "top_k": True}
    (place / "blobs/sha256-4").write_text(json.dumps(parameters))

    (model,) = find_ollama_models(place).models

    assert model.role is Role.CHAT
    assert model.projector == place / "blobs/sha256-2"
    assert model.adapters == (place / "blobs/sha256-3",)
    assert model.settings == {"--ctx-size": "4096", "--temp": "0.6"}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{", "m:1: the manifest cannot be read: JSONDecodeError("),
        ('{"layers": 7}', "m:1: the manifest cannot be read: TypeError("),
        (
            [("model", "sha256:9")],
            "m:1: the file sha256-9 is missing; `ollama pull` loads it again",
        ),
        ([("model", "sha256:../../x")], "m:1: the file x is missing"),
        ([("tensor", "sha256:1")], "m:1: stored in a format of Ollama's own, not as GGUF"),
        ([("license", "sha256:1")], "m:1: expected one model file in the manifest, got 0"),
        ([("model", "sha256:2")], "m:1: "),
    ],
)
def test_store_damaged_models_are_left_with_the_reason(
    tmp_path: Path, content: Any, reason: str
) -> None:
    """One bad manifest is named, and the others are found."""
    place = store(
        tmp_path,
        {
            "registry.ollama.ai/library/m/1": content,
            "registry.ollama.ai/library/good/1": [("model", "sha256:1")],
        },
    )
    write_gguf(place / "blobs/sha256-1")
    (place / "blobs/sha256-2").write_bytes(b"junk")

    found = find_ollama_models(place)

    assert [model.name for model in found.models] == ["good:1"]
    assert [left.reason[: len(reason)] for left in found.left] == [reason]


def test_store_is_looked_for_where_ollama_keeps_it(tmp_path: Path) -> None:
    """The folder that exists comes first; that of the variable before those of the installers."""
    (tmp_path / ".ollama/models/manifests").mkdir(parents=True)
    (tmp_path / "given/manifests").mkdir(parents=True)

    assert ollama_stores({}, tmp_path)[0] == tmp_path / ".ollama/models"
    assert ollama_stores({"OLLAMA_MODELS": str(tmp_path / "given")}, tmp_path)[0].name == "given"
    assert ollama_stores({"OLLAMA_MODELS": "/no"}, tmp_path)[0] == tmp_path / ".ollama/models"
