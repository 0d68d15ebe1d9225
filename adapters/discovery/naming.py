"""Names of models, from the names of their files. Pure."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from .found import Model

_PART = re.compile(r"-\d{5}-of-\d{5}$")
#: A quantization at the end of a name, such as ``-Q4_K_M``, ``.IQ2_XXS`` or ``-UD-Q4_K_XL``.
_QUANTIZATION = re.compile(
    r"[-._](?:UD-)?(?:I?Q\d(?:_[0-9A-Z]{1,3}){0,3}|TQ\d_\d|BF16|F16|F32|FP16|FP8|MXFP4(?:_MOE)?)$",
    re.IGNORECASE,
)
_MEANINGLESS = re.compile(r"(?:ggml[-_])?(?:model|gguf|weights)(?:[-_.].{0,12})?$", re.IGNORECASE)
_NOT_IN_A_NAME = re.compile(r"[^\w.:/+@-]++")


def names_of(path: Path) -> tuple[str, str]:
    """Return the name of the model in *path*, without and with its quantization.

    A file with a meaningless name, such as ``model.gguf``, has that of its directory.
    """
    stem = path.name if path.is_dir() else _PART.sub("", path.name.removesuffix(path.suffix))
    short = _QUANTIZATION.sub("", stem) or stem
    if _MEANINGLESS.match(short) and path.parent.name:
        stem = short = path.parent.name.removesuffix("-GGUF")
    return clean_name(short), clean_name(stem)


def clean_name(name: str) -> str:
    """Return *name* with a dash for what cannot stand in a name."""
    return _NOT_IN_A_NAME.sub("-", name).strip("-./") or "model"


def unique_names(models: Sequence[Model]) -> list[Model]:
    """Return *models* with names that differ, in any case of letters.

    Where two have the same name, both get their quantization, then the name of their directory,
    and then a number.
    """
    named = list(models)
    for longer in (_with_quantization, _with_directory):
        taken = Counter(model.name.lower() for model in named)
        named = [longer(model) if taken[model.name.lower()] > 1 else model for model in named]
    seen: set[str] = set()
    result = []
    for model in named:
        name, number = model.name, 1
        while name.lower() in seen:
            number += 1
            name = f"{model.name}-{number}"
        seen.add(name.lower())
        result.append(replace(model, name=name))
    return result


def _with_quantization(model: Model) -> Model:
    return replace(model, name=model.full_name) if model.full_name else model


def _with_directory(model: Model) -> Model:
    folder = clean_name(model.path.parent.name)
    return replace(model, name=f"{folder}/{model.name}")
