"""Commands for models that were found, with a context that fits the memory of the machine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from ...dataclass import dataclass, field
from ..llama_cpp.gguf import Gguf, GgufError
from ..memory.estimate import RAM, estimate
from .engines import Engines
from .found import Found, Model, Role
from .naming import clean_name, unique_names

#: Contexts that are tried, in tokens; a larger one is seldom used whole and takes memory for good.
_CONTEXTS = (32768, 16384, 8192, 4096)
_SMALLEST = _CONTEXTS[-1]
PORT = "${PORT}"  # macro of the configuration
_ROLES = {Role.EMBEDDING: "--embeddings", Role.RERANKING: "--reranking"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """Memory that models may have.

    Attributes:
        gpus: Pool of a GPU -> bytes for models, in the order of their numbers.
        ram: Bytes of main memory for models; 0 if it is not known.
    """

    gpus: Mapping[str, int] = field(default_factory=dict)
    ram: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedModel:
    """A model with the command that serves it.

    Attributes:
        model: The model; its name is unique.
        argv: Program and arguments, with the macro for the port.
        context: Tokens of context; 0 where the engine decides.
        amounts: Pool -> bytes that the command will take, by estimate; empty if it cannot be said.
        note: The estimate in words.
        fits: True if it fits, alone, into the memory of the machine; None if it cannot be said.
    """

    model: Model
    argv: tuple[str, ...]
    context: int = 0
    amounts: Mapping[str, int] = field(default_factory=dict)
    note: str = ""
    fits: bool | None = None


def plan_models(
    found: Found, engines: Engines, room: Room, vllm_models: Sequence[str] = ()
) -> list[PlannedModel]:
    """Return a command for each model of *found*; those without an engine are added to its `left`.

    A GGUF file gets a command for llama-server even where none is in PATH, because it is easily
    installed. A directory of safetensors needs vLLM.

    Args:
        found: What searches have found.
        engines: Programs of this machine.
        room: Memory of the machine.
        vllm_models: Further models for vLLM, as it takes them: an id of a hub, or a directory.
    """
    usable = []
    for model in found.models:
        if model.head is None and engines.vllm is None:
            found.leave(model.path, "a directory of safetensors, and vllm is not in PATH")
        else:
            usable.append(model)
    usable += [Model(path=Path(name), name=clean_name(name), size=0) for name in vllm_models]
    return [
        _vllm(model, engines) if model.head is None
        else _llama_server(model, model.head, engines, room)
        for model in unique_names(usable)
    ]  # fmt: skip


def _vllm(model: Model, engines: Engines) -> PlannedModel:
    argv = [
        engines.vllm or "vllm", "serve", str(model.path), "--port", PORT,
        "--served-model-name", model.name,
    ]  # fmt: skip
    if model.role is not Role.CHAT:
        argv += ["--runner", "pooling"]
    return PlannedModel(model=model, argv=tuple(argv))


def _llama_server(model: Model, head: Gguf, engines: Engines, room: Room) -> PlannedModel:
    """Return the command with the largest context that fits, else the smallest."""
    tried = [_with_context(model, context, engines, room) for context in _contexts(model, head)]
    return next((each for each in tried if each.fits), tried[-1])


def _contexts(model: Model, head: Gguf) -> Iterator[int]:
    if "--ctx-size" in model.settings:
        yield int(float(model.settings["--ctx-size"]))
        return
    longest = head.number("context_length") or _SMALLEST
    if model.role is not Role.CHAT:
        yield min(longest, _CONTEXTS[2])
        return
    contexts = [context for context in _CONTEXTS if context <= longest]
    yield from contexts or [longest]


def _with_context(model: Model, context: int, engines: Engines, room: Room) -> PlannedModel:
    argv = [engines.llama_server or "llama-server", "--model", str(model.path), "--port", PORT]
    argv += ["--ctx-size", str(context)]
    argv += [_ROLES[model.role]] if model.role in _ROLES else []
    argv += ["--mmproj", str(model.projector)] if model.projector else []
    for adapter in model.adapters:
        argv += ["--lora", str(adapter)]
    for option, value in model.settings.items():
        argv += [] if option == "--ctx-size" else [option, value]
    planned = PlannedModel(model=model, argv=tuple(argv), context=context)
    for gpus in _placements(room):
        amounts, note = _amounts(argv, gpus)
        if not amounts:
            break
        fits = _fits(amounts, {**gpus, **({RAM: room.ram} if room.ram else {})})
        planned = replace(planned, amounts=amounts, note=note, fits=fits)
        if fits:
            break
    return planned


def _fits(amounts: Mapping[str, int], limits: Mapping[str, int]) -> bool | None:
    """Return whether *amounts* keep within *limits*; None if the limit of one is not known."""
    if any(amount > limits.get(pool, amount) for pool, amount in amounts.items()):
        return False
    return True if amounts.keys() <= limits.keys() else None


def _placements(room: Room) -> Iterator[Mapping[str, int]]:
    """Yield the largest GPU alone, then all of them; none on a machine without."""
    if not room.gpus:
        yield {}
        return
    largest = max(room.gpus, key=lambda name: room.gpus[name])
    yield {largest: room.gpus[largest]}
    if len(room.gpus) > 1:
        yield room.gpus


def _amounts(argv: Sequence[str], gpus: Mapping[str, int]) -> tuple[Mapping[str, int], str]:
    try:
        found = estimate(argv, {}, gpus)
    except (OSError, GgufError):
        return {}, ""
    return ({}, "") if found is None else (found.amounts, found.note)
