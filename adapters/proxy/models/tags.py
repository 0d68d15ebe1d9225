"""Names of models with the tags of Ollama: ``qwen`` and ``qwen:latest`` are the same model.

Source: the documentation of the API of Ollama, "Model names".
"""

from __future__ import annotations

from .catalog import ModelCatalog
from .profiles import Profiles

#: ASGI extension of requests that came in by the listener of Ollama's API.
LISTENER = "swapchart.ollama"
_LATEST = ":latest"


def tagged(name: str) -> str:
    """Return *name* as Ollama lists it: with a tag."""
    return name if _has_tag(name) else name + _LATEST


def known_name(catalog: ModelCatalog, profiles: Profiles, name: str) -> str:
    """Return the name that the proxy knows for *name*, with or without its tag; or *name*."""
    other = name.removesuffix(_LATEST) if name.endswith(_LATEST) else tagged(name)
    if _is_known(catalog, profiles, name) or not _is_known(catalog, profiles, other):
        return name
    return other


def _is_known(catalog: ModelCatalog, profiles: Profiles, name: str) -> bool:
    return name in profiles.pins or name in catalog.targets or name in catalog.selectors


def _has_tag(name: str) -> bool:
    return ":" in name.rpartition("/")[2]
