"""Options of Ollama's API, as parameters of OpenAI's and llama-server's. Pure.

Options that Ollama applies when it loads a model, such as ``num_ctx`` and ``num_gpu``, have no
effect: the command of the model sets them. `num_predict` below 0 means no limit, which is the
default of the servers.

Source: Ollama, documentation of the Modelfile, "Valid Parameters and Values"; llama.cpp,
tools/server/README.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...responses import ApiError

_NUMBERS = {
    "temperature": "temperature", "top_p": "top_p", "min_p": "min_p", "typical_p": "typical_p",
    "repeat_penalty": "repeat_penalty", "presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty", "mirostat_tau": "mirostat_tau",
    "mirostat_eta": "mirostat_eta",
}  # fmt: skip
_INTEGERS = {
    "top_k": "top_k", "seed": "seed", "repeat_last_n": "repeat_last_n", "mirostat": "mirostat",
    "num_keep": "n_keep",
}  # fmt: skip
_LIMIT = 1 << 53  # every JSON parser keeps an integer below it


def parameters(options: Mapping[str, Any] | None, limit_name: str = "max_tokens") -> dict[str, Any]:
    """Return the parameters for *options*.

    Args:
        options: Options of a request; None means that it has none.
        limit_name: Name of the parameter that limits the tokens of a response.

    Raises:
        ApiError: The value of an option has a wrong type.
    """
    found: dict[str, Any] = {}
    for name, value in (options or {}).items():
        if value is None:
            continue
        if name in _NUMBERS:
            found[_NUMBERS[name]] = _number(name, value)
        elif name in _INTEGERS:
            found[_INTEGERS[name]] = _integer(name, value)
        elif name == "num_predict":
            if (limit := _integer(name, value)) >= 0:
                found[limit_name] = limit
        elif name == "stop" and (texts := _texts(name, value)):
            found["stop"] = texts
    return found


def _number(name: str, value: object) -> int | float:
    if isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < _LIMIT:
        return value
    raise _wrong(name, "a number", value)


def _integer(name: str, value: object) -> int:
    number = _number(name, value) if not isinstance(value, str) else None
    if number is None or number != int(number):
        raise _wrong(name, "an integer", value)
    return int(number)


def _texts(name: str, value: object) -> list[str]:
    texts = [value] if isinstance(value, str) else value
    if isinstance(texts, list) and all(isinstance(text, str) for text in texts):
        return [text for text in texts if text]
    raise _wrong(name, "a list of texts", value)


def _wrong(name: str, expected: str, value: object) -> ApiError:
    return ApiError(400, f"option `{name}`: expected {expected}, got {str(value)[:40]!r}")
