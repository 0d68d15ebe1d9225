"""Bodies of Ollama's API that are not about one response of a model."""

from __future__ import annotations

from typing import Any

from msgspec import Struct, field

from .base import Body, Part


class OllamaError(Body, kw_only=True):
    """An error."""

    error: str


class OllamaVersion(Body, kw_only=True):
    """Version of Ollama whose API this is."""

    version: str


class ModelDetails(Part, kw_only=True):
    """Facts about the file of a model; empty where nothing is known."""

    parent_model: str = ""
    format: str = ""
    family: str = ""
    families: list[str] = field(default_factory=list)
    parameter_size: str = ""
    quantization_level: str = ""


class ListedModel(Part, kw_only=True):
    """A model in the list.

    Attributes:
        modified_at: Start of the proxy, RFC 3339.
        size: Size of its files in bytes; 0 means unknown.
        digest: Hash of its name.
    """

    name: str
    model: str
    modified_at: str
    size: int
    digest: str
    details: ModelDetails


class ListedModels(Body, kw_only=True):
    """All models that the key of the client may use."""

    models: list[ListedModel]


class LoadedModel(Part, kw_only=True):
    """A model whose server runs.

    Attributes:
        expires_at: End of its idle timeout, RFC 3339; in the year 2318 if it has none.
        size_vram: Bytes of memory that it holds on GPUs; 0 means unknown.
        context_length: In tokens; 0 means unknown.
    """

    name: str
    model: str
    size: int
    digest: str
    details: ModelDetails
    expires_at: str
    size_vram: int
    context_length: int


class LoadedModels(Body, kw_only=True):
    """Models whose server runs."""

    models: list[LoadedModel]


class ModelFacts(Body, kw_only=True):
    """Facts about a model.

    Attributes:
        model_info: ``general.architecture``, ``general.basename`` and the context length as
            ``ARCHITECTURE.context_length``.
        capabilities: ``completion`` or ``embedding``, and ``tools`` and ``vision``.
    """

    modelfile: str
    parameters: str
    template: str
    details: ModelDetails
    model_info: dict[str, Any]
    capabilities: list[str]
    modified_at: str


class PullStatus(Body, kw_only=True):
    """State of a pull."""

    status: str


class FileFacts(Struct, kw_only=True):
    """Facts of a model that the composition root adds, see ``ProxyContext.details``.

    Attributes:
        size: Bytes of its files.
        architecture: Such as ``llama``.
        parameter_size: Such as ``8.0B``.
        quantization: Such as ``Q4_K_M``.
        context: Context length in tokens.
        is_embedding: Its server computes embeddings only.
        has_vision: Its server accepts images.
    """

    size: int = 0
    architecture: str = ""
    parameter_size: str = ""
    quantization: str = ""
    context: int = 0
    is_embedding: bool = False
    has_vision: bool = False
