"""Keys of `yield`: when models leave memory to other programs."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from .fields import CommandLine, SecondsOrOff, Section, refuse
from .memory import Size, SizeText, as_argv


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
    ) = Field(default=None, description="a program of such a name runs, e.g. steam_app_*")
    run: Annotated[CommandLine, AfterValidator(as_argv)] | None = Field(
        default=None, description="this command ends with status 0"
    )
    others: SizeText | None = Field(
        default=None, description="other programs hold so much of one of the pools"
    )

    @model_validator(mode="after")
    def _one_kind(self) -> YieldWhen:
        if sum(each is not None for each in (self.process, self.run, self.others)) != 1:
            raise refuse("expected exactly one of process, run and others")
        return self

    @property
    def argv(self) -> tuple[str, ...]:
        """Command of `run`, as program and arguments; empty without it."""
        return self.run if isinstance(self.run, tuple) else ()


class YieldSection(Section):
    """A rule by which models leave memory to other programs."""

    pools: tuple[str, ...] = Field(min_length=1)
    when: YieldWhen
    keep: SizeText = Field(default=Size(bytes_=0), description="most that models hold meanwhile")
    quiet_for: SecondsOrOff = Field(default=60.0, description="seconds without the condition")
    come_back: bool = Field(default=True, description="load again what was evicted")
    pinned: bool = Field(default=False, description="pinned models go too")
