"""Searches for model files: what is found, with which name and use, and why the rest is left."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from tools.gguf_files import write_gguf
from tools.make_tiny_gguf import write_tiny_gguf

from swapchart.adapters.discovery import Found, Role, find_models
from swapchart.adapters.discovery.found import Model
from swapchart.adapters.discovery.naming import names_of, unique_names


def names(found: Found) -> dict[str, Role]:
    return {model.name: model.role for model in found.models}


def reasons(found: Found) -> dict[str, str]:
    return {left.path.name: left.reason for left in found.left}


def test_search_tells_uses_apart(tmp_path: Path) -> None:
    """Chat models, embedders and rerankers are distinguished by metadata, not by names."""
    write_gguf(tmp_path / "a-Q4_K_M.gguf")
    write_gguf(tmp_path / "deep/er/b.gguf", "nomic-bert")
    write_gguf(tmp_path / "c.gguf", "qwen3", qwen3__pooling_type=3)
    write_gguf(tmp_path / "d.gguf", "bert", bert__pooling_type=4)
    write_gguf(tmp_path / "e.GGUF", "qwen3", qwen3__pooling_type=0)

    found = find_models([tmp_path])

    assert names(found) == {
        "a": Role.CHAT, "b": Role.EMBEDDING, "c": Role.EMBEDDING, "d": Role.RERANKING,
        "e": Role.CHAT,
    }  # fmt: skip
    assert not found.left


def test_search_leaves_what_no_server_runs_with_the_reason(tmp_path: Path) -> None:
    """Each file that is not served is named with its reason."""
    (tmp_path / "text.gguf").write_bytes(b"not a model")
    (tmp_path / "short.gguf").write_bytes(
        write_tiny_gguf(tmp_path / "whole.gguf").read_bytes()[:-1]
    )
    (tmp_path / "empty.gguf").touch()
    (tmp_path / "half.gguf.part").write_bytes(b"GGUF")
    write_gguf(tmp_path / "lora.gguf", general__type="adapter")
    write_gguf(tmp_path / "flux1-dev.gguf", "flux")
    write_gguf(tmp_path / "vocab.gguf", tensors=0)
    write_gguf(tmp_path / "imatrix.gguf", "")
    write_gguf(tmp_path / "big-00001-of-00003.gguf")
    write_gguf(tmp_path / "tail-00002-of-00003.gguf")
    write_gguf(tmp_path / "tail-00003-of-00003.gguf")
    os.truncate(write_gguf(tmp_path / "ggml-base.bin"), 17 << 20)
    (tmp_path / "notes.txt").touch()

    found = find_models([tmp_path])

    assert names(found) == {"whole": Role.CHAT}
    assert reasons(found) == {
        "text.gguf": "expected the magic GGUF, found b'not '",
        "empty.gguf": "expected the magic GGUF, found an empty file",
        "half.gguf.part": "a download that is not complete",
        "short.gguf": "ends early, after 506847 of 506848 bytes",
        "lora.gguf": "a LoRA adapter: add it to its model's cmd with --lora",
        "flux1-dev.gguf": "an image or video model, which llama-server does not run",
        "vocab.gguf": "a vocabulary without weights",
        "imatrix.gguf": "no model: its metadata name no architecture",
        "big-00001-of-00003.gguf": "2 of 3 parts missing: big-00002-of-00003.gguf, "
        "big-00003-of-00003.gguf",
        "tail-00002-of-00003.gguf": "the first part, tail-00001-of-00003.gguf, is missing",
        "ggml-base.bin": "a model of whisper.cpp, or weights without their structure: "
        "no engine is known for it",
    }


def test_search_takes_all_parts_of_a_split_model_as_one(tmp_path: Path) -> None:
    """The first part names the model, its size is that of all parts."""
    parts = [write_gguf(tmp_path / f"x-Q8_0-0000{n}-of-00003.gguf") for n in (1, 2, 3)]

    found = find_models([tmp_path])

    assert [(m.name, m.path, m.size) for m in found.models] == [
        ("x", parts[0], sum(part.stat().st_size for part in parts))
    ]


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (["a-Q4_0.gguf", "mmproj-F16.gguf"], {"a": "mmproj-F16.gguf"}),
        (["a-Q4_0.gguf", "mmproj-F32.gguf", "mmproj-f16.gguf"], {"a": "mmproj-f16.gguf"}),
        (["a.gguf", "b.gguf", "mmproj-model.gguf"], {"a": None, "b": None}),
        (["a.gguf", "b.gguf", "mmproj-b.gguf"], {"a": None, "b": "mmproj-b.gguf"}),
        (["a.gguf", "a-mmproj-f16.gguf", "b.gguf"], {"a": "a-mmproj-f16.gguf", "b": None}),
    ],
)
def test_search_gives_a_projector_to_its_model(
    tmp_path: Path, files: list[str], expected: dict[str, str | None]
) -> None:
    """A projector is no model; it belongs to the model of its name, or the only one beside it."""
    for name in files:
        write_gguf(tmp_path / name, "clip" if "mmproj" in name else "llama")

    found = find_models([tmp_path])

    assert {m.name: m.projector and m.projector.name for m in found.models} == expected


def test_search_follows_links_to_files_and_counts_a_file_once(tmp_path: Path) -> None:
    """The cache of Hugging Face has links to its files; links to folders could lead in a circle."""
    blob = write_gguf(tmp_path / "hub/.blobs/0123")
    link = tmp_path / "hub/snapshots/a/model-x.gguf"
    link.parent.mkdir(parents=True)
    link.symlink_to(blob)
    (tmp_path / "again.gguf").symlink_to(blob)
    (tmp_path / "hub/loop").symlink_to(tmp_path)
    (tmp_path / "gone.gguf").symlink_to(tmp_path / "nowhere")

    found = find_models([tmp_path])

    assert len(found.models) == 1
    assert reasons(found) == {"gone.gguf": "cannot be read: No such file or directory"}


def test_search_finds_directories_of_safetensors(tmp_path: Path) -> None:
    """A directory with weights and a configuration is one model; a part is left out."""
    for name, architecture, is_whole in [
        ("chat", "LlamaForCausalLM", True), ("embed", "BertModel", True),
        ("rank", "XLMRobertaForSequenceClassification", True), ("cut", "LlamaForCausalLM", False),
    ]:  # fmt: skip
        folder = tmp_path / name
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps({"architectures": [architecture]}))
        (folder / "model-1.safetensors").write_bytes(b"1234")
        weights = {"a": "model-1.safetensors", "b": "model-1.safetensors"}
        if not is_whole:
            weights["b"] = "model-2.safetensors"
        index = folder / "model.safetensors.index.json"
        index.write_text(json.dumps({"weight_map": weights}))
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter/config.json").write_text("[]")
    (tmp_path / "adapter/adapter.safetensors").touch()

    found = find_models([tmp_path])

    assert names(found) == {"chat": Role.CHAT, "embed": Role.EMBEDDING, "rank": Role.RERANKING}
    assert reasons(found) == {
        "cut": "1 parts missing: model-2.safetensors",
        "adapter": "config.json names no architectures: perhaps an adapter or a part",
    }


def test_search_of_an_unreadable_folder_is_an_error_of_the_caller(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        find_models([tmp_path / "nowhere"])


@pytest.mark.parametrize(
    ("path", "short", "full"),
    [
        ("Qwen3-8B-Q4_K_M.gguf", "Qwen3-8B", "Qwen3-8B-Q4_K_M"),
        ("gpt-oss-20b-MXFP4.gguf", "gpt-oss-20b", "gpt-oss-20b-MXFP4"),
        ("Qwen3-30B-A3B-UD-Q4_K_XL.gguf", "Qwen3-30B-A3B", "Qwen3-30B-A3B-UD-Q4_K_XL"),
        ("phi-4.IQ2_XXS.gguf", "phi-4", "phi-4.IQ2_XXS"),
        ("llama-3.2-1b-instruct-f16.gguf", "llama-3.2-1b-instruct", "llama-3.2-1b-instruct-f16"),
        ("big-Q8_0-00001-of-00004.gguf", "big", "big-Q8_0"),
        ("smollm2/model.gguf", "smollm2", "smollm2"),
        ("gemma-3-4b-it-GGUF/ggml-model-q4_0.gguf", "gemma-3-4b-it", "gemma-3-4b-it"),
        ("my model (copy) #2.gguf", "my-model-copy-2", "my-model-copy-2"),
        ("Q4_0.gguf", "Q4_0", "Q4_0"),
        ("???.gguf", "model", "model"),
    ],
)
def test_names_are_those_of_the_model_not_of_its_packing(path: str, short: str, full: str) -> None:
    """Quantization, parts and meaningless words are taken off."""
    assert names_of(Path("/models", path)) == (short, full)


def test_names_that_collide_become_longer_and_stay_unique() -> None:
    """By the quantization, then by the folder, else by a number; letter case does not count."""
    models = [
        Model(path=Path(path), name=name, full_name=full, size=1)
        for path, name, full in [
            ("/x/a-Q4_0.gguf", "a", "a-Q4_0"), ("/x/a-Q8_0.gguf", "A", "A-Q8_0"),
            ("/y/b.gguf", "b", ""), ("/z/b.gguf", "b", ""), ("/w/c.gguf", "c", "c-Q4_0"),
            ("/v/z/b.gguf", "b", ""),
        ]
    ]  # fmt: skip

    assert [model.name for model in unique_names(models)] == [
        "a-Q4_0", "A-Q8_0", "y/b", "z/b", "c", "z/b-2",
    ]  # fmt: skip
