"""Keys of `yield`: when models leave memory to other programs."""

from __future__ import annotations

from typing import Annotated

from .fields import CommandLine, SecondsOrOff
from .memory import Size, SizeText, as_argv
from .section import AfterValidator, BeforeValidator, Field, Section, refuse


def _as_patterns(value: object) -> object:
    return (value,) if isinstance(value, str) else value


def _not_blank(patterns: tuple[str, ...]) -> tuple[str, ...]:
    if not patterns or not all(pattern.strip() for pattern in patterns):
        raise refuse("expected names of programs, such as blender or steam_app_*")
    return patterns


class YieldWhen(Section):
    """Condition of a rule; exactly one key."""

    process: (
        Annotated[
            tuple[str, ...],
            BeforeValidator(_as_patterns, json_schema_input_type=str | tuple[str, ...]),
            AfterValidator(_not_blank),
        ]
        | None
    ) = None
    """Name of a program that runs, or several; `*` matches any text.

    Example: `process: ["steam_app_*", blender]`
    """
    run: Annotated[CommandLine, AfterValidator(as_argv)] | None = None
    """Command that ends with status 0. Example: `run: game-is-on`"""
    others: SizeText | None = None
    """Amount that other programs hold of one of the pools. Example: `others: 4GiB`"""

    def _check_fields(self) -> None:
        if sum(each is not None for each in (self.process, self.run, self.others)) != 1:
            raise refuse("expected exactly one of process, run and others")

    @property
    def argv(self) -> tuple[str, ...]:
        """Command of `run`, as program and arguments; empty without it."""
        return self.run if isinstance(self.run, tuple) else ()


class YieldSection(Section):
    """A rule by which models leave memory to other programs."""

    pools: tuple[str, ...] = Field(min_length=1)
    """Pools that the rule is about. Example: `pools: [RAM]`"""
    when: YieldWhen
    """Condition of the rule; exactly one key. Example: `when: {process: blender}`"""
    keep: SizeText = Field(default_factory=lambda: Size(bytes_=0))
    """Most that models hold meanwhile. Example: `keep: 4GiB`"""
    quiet_for: SecondsOrOff = 60.0
    """Seconds without the condition until the rule ends. Example: `quietFor: 120`"""
    come_back: bool = True
    """Load again what was evicted. Example: `comeBack: false`"""
    pinned: bool = False
    """Evict pinned models too. Example: `pinned: true`"""
