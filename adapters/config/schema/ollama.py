"""Section ``ollama``: the listener of Ollama's API."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated

from ...system.addresses import is_loopback, parse_address
from .fields import ApiKeySection
from .section import AfterValidator, Section, refuse


def _as_address(text: str) -> str:
    try:
        parse_address(text)
    except ValueError as error:
        raise refuse(str(error)) from error
    return text


class OllamaSection(Section):
    """A listener of its own for clients of Ollama; its API is also below `/ollama/`."""

    listen: Annotated[str, AfterValidator(_as_address)] = "127.0.0.1:11434"
    """Address of the listener. Without `apiKeys` it must be a loopback address.

    Example: `listen: "0.0.0.0:11434"`
    """
    key: str = ""
    """Name of the API key whose rights a client of this listener has that sends no valid key; by
    default such a client is refused where `apiKeys` are configured.

    Example: `key: home`
    """


def problems(
    ollama: OllamaSection | None, keys: Sequence[ApiKeySection]
) -> Iterator[tuple[tuple[int | str, ...], str]]:
    """Yield path and message of each setting that does not fit *keys*, and names given twice."""
    names = [section.name for section in keys]
    for place, name in enumerate(names):
        if name and name in names[:place]:
            message = f"expected another name: an API key before is called {name!r} too"
            yield ("apiKeys", place, "name"), message
    if ollama is None:
        return
    if ollama.key and ollama.key not in names:
        known = ", ".join(filter(None, names)) or "none has a name"
        message = f"expected the `name` of one of `apiKeys` ({known}), got {ollama.key!r}"
        yield ("ollama", "key"), message
    if not keys and not is_loopback(parse_address(ollama.listen)[0]):
        message = (
            f"{ollama.listen} can be reached from other machines and no apiKeys are configured: "
            "add one, and name it as `ollama.key` for clients that send none, or listen on "
            "127.0.0.1"
        )
        yield ("ollama", "listen"), message
