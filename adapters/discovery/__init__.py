"""Discovery: model files and engines of a machine, and a configuration that serves them.

`model_files` looks through folders, `ollama_store` through the store of Ollama, `engines` for
programs. `naming` gives each model an ID, `planning` a command with a context that fits, and
`document` writes the configuration with comments.
"""

from __future__ import annotations

from .document import configuration
from .engines import Engines, find_engines
from .found import Found, Left, Model, Role
from .model_files import find_models
from .ollama_store import find_ollama_models, ollama_stores
from .planning import PlannedModel, Room, plan_models

__all__ = [
    "Engines",
    "Found",
    "Left",
    "Model",
    "PlannedModel",
    "Role",
    "Room",
    "configuration",
    "find_engines",
    "find_models",
    "find_ollama_models",
    "ollama_stores",
    "plan_models",
]
