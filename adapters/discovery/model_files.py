"""Search for model files in folders: GGUF with parts and projectors, directories of safetensors."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from ..llama_cpp.gguf import Gguf, GgufError, read_complete_gguf, shards
from .found import Found, Model, Role
from .naming import names_of

_MOST_FOLDERS = 20_000
#: Architectures of files that belong to other programs -> what they are.
_FOREIGN = {
    **dict.fromkeys(
        (
            "flux", "sd1", "sdxl", "sd3", "wan", "hidream", "lumina2", "ltxv", "aura", "cosmos",
            "qwen_image", "hyvid", "pixart",
        ),
        "an image or video model, which llama-server does not run",
    ),
    "whisper": "a speech model, which llama-server does not run",
}  # fmt: skip
_EMBEDDERS = ("bert", "gemma-embedding", "t5encoder")  # parts of names of architectures
_RANK = 4  # llama.cpp's pooling type of rerankers
#: Suffixes that browsers and download programs give to a file until it is complete.
_DOWNLOADS = frozenset({".part", ".incomplete", ".crdownload", ".download", ".partial", ".tmp"})
_OTHER_WEIGHTS = {
    ".bin": "a model of whisper.cpp, or weights without their structure: no engine is known for it",
    ".pth": "weights of PyTorch: no engine is known for it",
    ".onnx": "an ONNX model: no engine is known for it",
}


def find_models(folders: Sequence[Path]) -> Found:
    """Look through *folders* and everything below them.

    Links to files are followed, links to folders are not, so that no loop is entered; a file that
    is reached twice counts once. A path in *folders* may also be a file, with the projector and the
    parts beside it.

    Raises:
        OSError: One of *folders* cannot be read.
    """
    found = Found()
    seen: set[Path] = set()
    for folder in folders:
        if folder.is_file():
            _file(found, folder, sorted(folder.parent.iterdir()), seen)
            continue
        next(folder.iterdir(), None)  # an error of this one is an error of the caller
        for place, files in _folders(folder, found):
            if _is_safetensors(place, files):
                _directory(found, place, files)
            for path in files:
                _file(found, path, files, seen)
    return found


def _folders(top: Path, found: Found) -> Iterator[tuple[Path, list[Path]]]:
    """Yield *top* and each folder below it, with the files in them in the order of their names."""

    def unreadable(error: OSError) -> None:
        found.leave(Path(error.filename or top), f"cannot be read: {error.strerror}")

    walk = os.walk(top, onerror=unreadable)
    for number, (place, inner, names) in enumerate(walk):
        if number >= _MOST_FOLDERS:
            found.leave(Path(place), f"more than {_MOST_FOLDERS} folders; name the right one")
            return
        inner[:] = sorted(name for name in inner if not name.startswith("."))
        yield Path(place), [Path(place, name) for name in sorted(names)]


def _file(found: Found, path: Path, beside: Sequence[Path], seen: set[Path]) -> None:
    if path.suffix.lower() in _DOWNLOADS and path.stem.lower().endswith(".gguf"):
        found.leave(path, "a download that is not complete")
        return
    if path.suffix.lower() != ".gguf":
        with suppress(OSError):
            if (reason := _OTHER_WEIGHTS.get(path.suffix.lower())) and _is_large(path):
                found.leave(path, reason)
        return
    first = shards(path)[0]
    if path != first:
        parts = (other for other in beside if shards(other)[0] == first)
        if not first.exists() and path == min(parts):
            found.leave(path, f"the first part, {first.name}, is missing")
        return
    try:
        real = path.resolve(strict=True)
        if real in seen:
            return
        if not str(path).isprintable():
            raise LeftOutError("its path has characters that cannot be written into a command")
        seen.add(real)
        model = read_model(path)
    except (OSError, GgufError, LeftOutError) as error:
        text = str(error) if not isinstance(error, OSError) else f"cannot be read: {error.strerror}"
        found.leave(path, text.removeprefix(f"{path}: "))
        return
    if model is not None:
        found.models.append(replace(model, projector=_projector(path, beside)))


class LeftOutError(Exception):
    """The file cannot be served; the text is the reason."""


def read_model(path: Path) -> Model | None:
    """Return the model in a GGUF file; None for a projector, which belongs to another file.

    Raises:
        OSError: A part cannot be read.
        GgufError: A part is not complete.
        LeftOutError: No server is known for it.
    """
    parts = shards(path)
    missing = [part.name for part in parts if not part.exists()]
    if missing:
        names = ", ".join(missing[:3])
        raise LeftOutError(f"{len(missing)} of {len(parts)} parts missing: {names}")
    heads = [read_complete_gguf(part) for part in parts]
    head = heads[0]
    if is_projector(path, head):
        return None
    kind = head.values.get("general.type")
    if kind == "adapter":
        raise LeftOutError("a LoRA adapter: add it to its model's cmd with --lora")
    if kind == "imatrix" or not head.architecture:
        raise LeftOutError("no model: its metadata name no architecture")
    if not sum(each.tensors for each in heads):
        raise LeftOutError("a vocabulary without weights")
    if (reason := _FOREIGN.get(head.architecture)) is not None:
        raise LeftOutError(reason)
    short, full = names_of(path)
    return Model(
        path=path, name=short, full_name=full if full != short else "",
        size=sum(part.stat().st_size for part in parts), role=role_of(head), head=head,
    )  # fmt: skip


def is_projector(path: Path, head: Gguf) -> bool:
    """Return True if a file only turns images or sound into tokens of a model."""
    return (
        head.architecture == "clip"
        or head.values.get("general.type") == "mmproj"
        or path.name.lower().startswith("mmproj")
    )


def role_of(head: Gguf) -> Role:
    """Return the use of a model by its metadata."""
    pooling = head.values.get(f"{head.architecture}.pooling_type")
    if pooling == _RANK:
        return Role.RERANKING
    is_pooling = isinstance(pooling, int) and pooling > 0
    is_embedder = any(part in head.architecture for part in _EMBEDDERS)
    return Role.EMBEDDING if is_pooling or is_embedder else Role.CHAT


def _projector(path: Path, beside: Sequence[Path]) -> Path | None:
    """Return the projector of the model in *path*, from the files in its folder.

    The one whose name has the model's, else the only one if the folder has one model. Of several
    precisions F16 is taken.
    """
    near = [p for p in beside if p.suffix.lower() == ".gguf" and p != path]
    projectors = [p for p in near if "mmproj" in p.name.lower()]
    if not projectors:
        return None
    short = names_of(path)[0].lower()
    named = [p for p in projectors if short in p.name.lower()]
    if not named:
        models = {names_of(p)[0] for p in near if p not in projectors} | {names_of(path)[0]}
        named = projectors if len(models) == 1 else []
    usable = [p for p in named if _is_complete(p)]
    return min(usable, key=lambda p: ("f16" not in p.name.lower(), p.name), default=None)


def _is_complete(path: Path) -> bool:
    try:
        read_complete_gguf(path)
    except (OSError, GgufError):
        return False
    return True


def _is_large(path: Path) -> bool:
    return path.stat().st_size > 16 << 20


# ---- safetensors
def _is_safetensors(place: Path, files: Sequence[Path]) -> bool:
    names = {path.name for path in files}
    return any(name.endswith(".safetensors") for name in names) and "config.json" in names


def _directory(found: Found, place: Path, files: Sequence[Path]) -> None:
    try:
        config = json.loads((place / "config.json").read_text("utf-8"))
    except (OSError, ValueError) as error:
        found.leave(place, f"config.json cannot be read: {error}")
        return
    architectures = config.get("architectures") if isinstance(config, dict) else None
    if not isinstance(architectures, list) or not architectures:
        found.leave(place, "config.json names no architectures: perhaps an adapter or a part")
        return
    weights = [path for path in files if path.suffix == ".safetensors"]
    if missing := _missing_weights(place):
        found.leave(place, f"{len(missing)} parts missing: {', '.join(missing[:3])}")
        return
    name = names_of(place)[0]
    text = str(architectures[0])
    is_chat = text.endswith(("ForCausalLM", "ForConditionalGeneration", "LMHeadModel"))
    is_ranker = text.endswith("ForSequenceClassification")
    role = Role.CHAT if is_chat else Role.RERANKING if is_ranker else Role.EMBEDDING
    size = sum(path.stat().st_size for path in weights)
    found.models.append(Model(path=place, name=name, size=size, role=role))


def _missing_weights(place: Path) -> list[str]:
    """Return the files that the index of a split model names and that are not there."""
    index = place / "model.safetensors.index.json"
    try:
        named = json.loads(index.read_text("utf-8"))["weight_map"].values()
        return sorted({str(name) for name in named if not (place / str(name)).exists()})
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return [index.name]
