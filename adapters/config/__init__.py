"""Configuration: YAML files in, checked values with all defaults out.

`document` parses YAML with positions, `expand` applies defaults and macros, `schema` has the keys,
`validate` checks them, and `build_model` makes the `ModelConfig` of each model. `load_config`
returns a `Config`; it accepts llama-swap's keys and our own. Every problem is reported in one run,
with file, line and column. Nothing is executed, and no ``repr`` or message shows a secret.
"""

from __future__ import annotations

from .command_line import split_command
from .load import check_config, examine_config, load_config
from .problems import ConfigProblems, Problem, format_problems
from .schema.document import config_schema
from .schema.kv import Kv
from .schema.model import Capabilities, Drain, Liveness, Restart, Timeouts
from .schema.routing import Queue
from .values import (
    ApiKeyEntry,
    Config,
    Filters,
    Group,
    Matrix,
    ModelConfig,
    Peer,
    Profile,
    Routing,
    Selector,
    Sleep,
)

__all__ = [
    "ApiKeyEntry",
    "Capabilities",
    "Config",
    "ConfigProblems",
    "Drain",
    "Filters",
    "Group",
    "Kv",
    "Liveness",
    "Matrix",
    "ModelConfig",
    "Peer",
    "Problem",
    "Profile",
    "Queue",
    "Restart",
    "Routing",
    "Selector",
    "Sleep",
    "Timeouts",
    "check_config",
    "config_schema",
    "examine_config",
    "format_problems",
    "load_config",
    "split_command",
]
