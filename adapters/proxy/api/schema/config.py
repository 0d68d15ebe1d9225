"""Bodies about the configuration in force and its reload."""

from __future__ import annotations

from typing import Literal

from .base import Body, Part
from .control import ConfigProblem


class ModelChange(Part, kw_only=True):
    """Change of one model.

    Attributes:
        change: ``live``, ``next_start``, ``restart``, ``added`` or ``removed``.
        keys: Keys that differ; empty for models that are added or removed.
        state: State of the model now; empty if unknown.
        effect: What happens, in words.
    """

    id: str
    change: str
    keys: list[str]
    state: str
    effect: str


class SettingChange(Part, kw_only=True):
    """Change of a setting of the proxy; ``restart`` means when swapchart is started again."""

    key: str
    applies: Literal["restart", "now"]


class ReloadPlan(Body, kw_only=True):
    """Changes that a reload would make.

    Attributes:
        memory: Models that no longer fit into memory, alone or together, in words.
    """

    changed: bool
    models: list[ModelChange]
    unchanged: list[str]
    settings: list[SettingChange]
    memory: list[str]
    text: str


class ReloadReport(Body, kw_only=True):
    """Result of a reload.

    Attributes:
        ok: The new configuration is in force.
        why: What caused the reload.
        at: Wall clock; seconds since 1970.
        seconds: Duration in seconds.
        plan: What was changed; null if the configuration has an error.
    """

    ok: bool
    why: str
    at: float
    seconds: float
    plan: ReloadPlan | None
    problems: list[ConfigProblem]


class HeldBack(Part, kw_only=True):
    """A change of the configuration that waits for a reload by hand.

    Attributes:
        removed: Models that the change would remove.
        command: Command that reloads.
    """

    message: str
    removed: list[str]
    command: str


class ConfigFacts(Body, kw_only=True):
    """Where the configuration came from, and the result of the last reload.

    Attributes:
        reloads: Number of reloads, failed ones included.
    """

    files: list[str]
    models: list[str]
    warnings: list[ConfigProblem]
    reloads: int
    last_reload: ReloadReport | None
    held_back: HeldBack | None


class Setting(Part, kw_only=True):
    """One value of a model's configuration.

    Attributes:
        key: Dotted path below the model.
        value: The value with macros expanded; ``${env.X}`` stands for a variable.
        file: File that it comes from.
        line: Line in the file, from 1.
    """

    key: str
    value: str
    file: str
    line: int


class ModelSettings(Body, kw_only=True):
    """Settings of a model in force, in the order of its file."""

    model: str
    settings: list[Setting]
