"""Types of the API for containers of models."""

from __future__ import annotations

from .base import Part


class ContainerFacts(Part, kw_only=True):
    """Container of a model.

    Attributes:
        engine: Program of the container engine.
        image: Image that it runs.
        name: Name of the container; empty while there is none.
    """

    engine: str
    image: str
    name: str
