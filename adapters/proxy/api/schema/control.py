"""Bodies of the routes that control models and profiles, and of errors."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import UNSET, Meta, Struct

from .base import Body, Maybe, Part


class Version(Body, kw_only=True):
    """Version of the program; a part that the build does not know is empty."""

    version: str
    commit: str
    build_date: str


class Done(Body, kw_only=True):
    """The request was carried out."""

    msg: Literal["ok"] = "ok"


class Accepted(Body, kw_only=True):
    """The request is accepted: the model is being loaded or unloaded, or it is there already."""

    success: Literal[True] = True


class Profile(Part, kw_only=True):
    """A profile, which gives other meanings to model names.

    Attributes:
        pins: Name -> name of the model that serves it; "" disables the name.
    """

    id: str
    description: str
    pins: dict[str, str]


class Profiles(Body, kw_only=True):
    """All profiles, sorted by id, and the name of the active one."""

    active: str | None
    profiles: list[Profile]


class ActiveProfile(Body, kw_only=True):
    """Name of the profile that is active now, or null."""

    active: str | None


class ModelName(Struct, kw_only=True):
    """Body of a request that loads or unloads a model."""

    model: Annotated[str, Meta(min_length=1)]


class ProfileName(Struct, kw_only=True):
    """Body of a request that activates a profile; null deactivates it."""

    name: str | None


class ModelRequest(Struct, kw_only=True):
    """Fields of an inference request that the proxy reads; all others are forwarded unread."""

    model: str
    stream: Maybe[bool] = UNSET


class ConfigProblem(Part, kw_only=True):
    """One problem of the configuration.

    Attributes:
        file: File with the problem; empty if the problem has none.
        path: Dotted path of the key, such as ``models.qwen.ttl``; may be empty.
        line: Line in the file, from 1; 0 if there is none.
        column: Column in the line, from 1; 0 if there is none.
        text: The whole problem as one line.
    """

    file: str
    path: str
    line: int
    column: int
    message: str
    severity: Literal["error", "warning"]
    text: str


class ErrorDetail(Part, kw_only=True):
    """Failure of a command.

    Attributes:
        message: What was expected, what was found, and what to do.
        log: Last lines that the model printed, for keys with the scope ``admin``.
        problems: Problems of the configuration.
        retry_after_s: Time in seconds until the model is tried again, if it is not for now.
    """

    message: str
    type: str
    param: str | None
    code: str | None
    log: Maybe[list[str]] = UNSET
    problems: Maybe[list[ConfigProblem]] = UNSET
    retry_after_s: Maybe[int] = UNSET


class Error(Part, kw_only=True):
    """Error in the shape of OpenAI's API."""

    src: Literal["swapchart"]
    error: ErrorDetail


class AnthropicError(Part, kw_only=True):
    """Error in the shape of Anthropic's API."""

    type: Literal["error"]
    src: Literal["swapchart"]
    error: ErrorDetail
    request_id: Maybe[str] = UNSET
