"""The configuration: YAML files in, effective and checked values out.

It reads what llama-swap reads, and the keys of our own. Every problem is told at once, with file,
line and column; nothing is executed; values of secrets are in no ``repr`` and no message.
"""

from __future__ import annotations

from .command_line import split_command
from .load import check_config, load_config
from .problems import ConfigProblems, Problem, format_problems
from .schema.document import Queue, config_schema
from .schema.model import Capabilities, Drain, Kv, Liveness, Restart, Timeouts
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
    "format_problems",
    "load_config",
    "split_command",
]
