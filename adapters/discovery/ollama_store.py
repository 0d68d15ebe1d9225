"""The store of Ollama: manifests by name and tag, and files by checksum.

Its files are served by llama-server as they are; nothing is written, moved or copied.

Source: Ollama, docs/faq (where models are stored), and the layers of its manifests.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..llama_cpp.gguf import GgufError
from .found import Found, Model
from .model_files import LeftOutError, read_model

_LAYER = "application/vnd.ollama.image."
_HOST, _LIBRARY, _TAG = "registry.ollama.ai", "library", "latest"
#: Parameter of a Modelfile -> option of llama-server.
_PARAMETERS = {
    "num_ctx": "--ctx-size", "temperature": "--temp", "top_k": "--top-k", "top_p": "--top-p",
    "min_p": "--min-p", "repeat_penalty": "--repeat-penalty", "repeat_last_n": "--repeat-last-n",
    "presence_penalty": "--presence-penalty", "frequency_penalty": "--frequency-penalty",
    "seed": "--seed", "num_predict": "--predict",
}  # fmt: skip


def ollama_stores(environment: Mapping[str, str], home: Path) -> list[Path]:
    """Return the folders where Ollama may keep models, those that exist first."""
    given = environment.get("OLLAMA_MODELS")
    places = [Path(given)] if given else []
    places += [home / ".ollama/models", Path("/usr/share/ollama/.ollama/models")]
    return sorted(dict.fromkeys(places), key=lambda place: not (place / "manifests").is_dir())


def find_ollama_models(store: Path) -> Found:
    """Return the models of an Ollama store.

    Raises:
        OSError: The store cannot be read.
    """
    found = Found()
    manifests = store / "manifests"
    next(manifests.iterdir(), None)
    for path in _files(manifests):
        name = _name(path.relative_to(manifests).parts)
        if name is None:
            continue
        try:
            model = _model(store, path, name)
        except OSError as error:
            found.leave(path, f"{name}: cannot be read: {error.strerror}")
        except (GgufError, LeftOutError) as error:
            found.leave(path, f"{name}: {error}")
        else:
            found.models.append(model)
    return found


def _files(folder: Path) -> Iterator[Path]:
    for place, inner, names in os.walk(folder):
        inner.sort()
        yield from (Path(place, name) for name in sorted(names) if not name.startswith("."))


def _name(parts: tuple[str, ...]) -> str | None:
    """Return the name that ``ollama run`` takes, from host, namespace, model and tag."""
    if len(parts) < 4:
        return None
    host, *namespace, model, tag = parts
    words = [] if host == _HOST else [host]
    words += [] if namespace == [_LIBRARY] and host == _HOST else namespace
    return "/".join([*words, model]) + f":{tag}"


def _model(store: Path, manifest: Path, name: str) -> Model:
    layers = _layers(manifest)
    files = layers.get("model", [])
    if len(files) != 1:
        has_tensors = bool(layers.get("tensor"))
        raise LeftOutError(
            "stored in a format of Ollama's own, not as GGUF" if has_tensors
            else f"expected one model file in the manifest, got {len(files)}"
        )  # fmt: skip
    model = read_model(_blob(store, files[0]))
    if model is None:
        raise LeftOutError("a projector without a model")
    projectors = [_blob(store, digest) for digest in layers.get("projector", [])]
    settings: dict[str, str] = {}
    for digest in layers.get("params", []):
        settings.update(_parameters(_blob(store, digest)))
    short = name.removesuffix(f":{_TAG}")
    return replace(
        model, name=short, full_name=name if name != short else "", settings=settings,
        projector=projectors[0] if projectors else None,
        adapters=tuple(_blob(store, digest) for digest in layers.get("adapter", [])),
    )  # fmt: skip


def _layers(manifest: Path) -> dict[str, list[str]]:
    """Return the kinds of layers of a manifest, each with the checksums of its files."""
    try:
        layers = json.loads(manifest.read_text("utf-8"))["layers"]
        kinds: dict[str, list[str]] = {}
        for layer in layers:
            kind, digest = str(layer["mediaType"]), str(layer["digest"])
            if kind.startswith(_LAYER):
                kinds.setdefault(kind.removeprefix(_LAYER), []).append(digest)
    except (ValueError, KeyError, TypeError) as error:
        raise LeftOutError(f"the manifest cannot be read: {error!r}") from error
    return kinds


def _blob(store: Path, digest: str) -> Path:
    path = store / "blobs" / digest.replace(":", "-")
    if "/" in digest or not path.is_file():
        raise LeftOutError(f"the file {path.name} is missing; `ollama pull` loads it again")
    return path


def _parameters(path: Path) -> dict[str, str]:
    try:
        values: Any = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise LeftOutError(f"{path.name} cannot be read: {error}") from error
    if not isinstance(values, dict):
        raise LeftOutError(f"{path.name}: expected a mapping of parameters")
    return {
        option: str(values[key])
        for key, option in _PARAMETERS.items()
        if isinstance(values.get(key), (int, float)) and not isinstance(values[key], bool)
    }
