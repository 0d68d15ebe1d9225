"""Types of configuration values; each rejects a value with what was expected."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Annotated, Any, ClassVar, Literal, TypeAlias, TypeVar

from ...system.durations import seconds_of
from .section import AfterValidator, BeforeValidator, Field, SecretStr, Section, refuse

T = TypeVar("T")


def _as_command(value: object) -> object:
    if isinstance(value, str):
        return value
    if isinstance(value, (list, tuple)) and all(isinstance(item, str) for item in value):
        if value:
            return tuple(value)
        raise refuse("expected a command, found an empty list")
    raise refuse("expected a command as text, or as a list of texts (program and arguments)")


#: A command: a text that is split without a shell, or a list of program and arguments.
CommandLine: TypeAlias = Annotated[str | tuple[str, ...], BeforeValidator(_as_command)]

Seconds: TypeAlias = Annotated[float, Field(gt=0)]
SecondsOrOff: TypeAlias = Annotated[float, Field(ge=0)]
Count: TypeAlias = Annotated[int, Field(ge=0)]
#: Any YAML value, passed on unchanged.
FreeForm: TypeAlias = dict[str, Any]
Modality: TypeAlias = Literal["text", "audio", "image"]


def _as_duration(value: object) -> float:
    text = value if isinstance(value, str) else ""
    if text in ("0", "+0", "-0"):
        return 0.0
    seconds = seconds_of(text[1:] if text[:1] in ("+", "-") else text)
    if seconds is None:
        raise refuse("expected a duration such as 15s or 1h30m")
    return -seconds if text.startswith("-") else seconds


#: Duration in Go's notation (``1h30m``); seconds.
Duration: TypeAlias = Annotated[
    float,
    BeforeValidator(_as_duration, json_schema_input_type=str),
]


def _as_api_key(key: SecretStr) -> SecretStr:
    text = key.get_secret_value()
    if not text:
        raise refuse("empty api key found in apiKeys")
    if " " in text:
        raise refuse("api key cannot contain spaces")
    return key


ApiKey: TypeAlias = Annotated[SecretStr, AfterValidator(_as_api_key)]


def _not_empty(items: tuple[T, ...]) -> tuple[T, ...]:
    if not items:  # min_length would also report a list whose items are all invalid
        raise refuse("expected a list that is not empty")
    return items


KeyScope: TypeAlias = Literal["infer", "admin", "metrics"]


class ApiKeySection(Section):
    """An API key with limited permissions."""

    takes_text: ClassVar[bool] = True

    key: ApiKey
    """The key, or `sha256:` and its hash. Example: `key: sk-example`"""
    name: str = ""
    """Name by which `ollama.key` names this key. Example: `name: home`"""
    scopes: Annotated[tuple[KeyScope, ...], AfterValidator(_not_empty)] | None = None
    """Permissions: `infer`, `admin` and `metrics`; by default `infer` and `admin`, and `infer`
    alone for a key with `models`.

    Example: `scopes: [infer]`
    """
    models: Annotated[tuple[str, ...], AfterValidator(_not_empty)] | None = None
    """Names or patterns of the models that the key may use; by default all.

    Example: `models: ["qw*"]`
    """


def _as_api_key_entry(value: object) -> object:
    if isinstance(value, str):
        return {"key": value}
    if not isinstance(value, dict):
        raise refuse("expected a key as text, or a mapping with key, scopes and models")
    return value


#: A key as text, or a mapping with its permissions.
ApiKeyEntrySection: TypeAlias = Annotated[
    ApiKeySection,
    BeforeValidator(_as_api_key_entry, json_schema_input_type=str | ApiKeySection),
]


def _as_network(text: str) -> str:
    try:
        return str(ip_network(text.strip(), strict=False))
    except ValueError as error:
        raise refuse("expected an address or a network such as 10.0.0.0/8") from error


#: An address or a network; stored as a network.
Network: TypeAlias = Annotated[str, AfterValidator(_as_network)]
#: A text that is not empty.
Filled: TypeAlias = Annotated[str, Field(min_length=1)]
