"""Estimates on the machine that has the files of a model, where only Python need be installed.

`MODULES` are all that the function needs beside the standard library; their code travels with it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .estimate import GgufError, estimate

MODULES = tuple(
    f"swapchart.adapters.{name}"
    for name in ("memory.elsewhere", "memory.estimate", "llama_cpp.gguf", "llama_cpp.launch_args")
)


def estimates(
    argv: Sequence[str], environment: Mapping[str, str], places: Sequence[Mapping[str, int]]
) -> dict[str, Any]:
    """Return estimates of a command in values of JSON; reads files of this machine, and blocks.

    Args:
        argv: Program and arguments.
        environment: Its variables.
        places: Sets of GPUs that it could use: pool -> capacity in bytes.

    Returns:
        ``found``: an estimate for each place, or None; ``problem``: why there is none, in words.
    """
    found: list[dict[str, Any] | None] = []
    problem = ""
    for gpus in places:
        made = None
        try:
            made = estimate(argv, environment, gpus)
        except (OSError, GgufError, ArithmeticError, ValueError) as error:
            problem = str(error)
        found.append(
            None if made is None else {
                "amounts": dict(made.amounts), "note": made.note, "files": made.files,
                "advice": made.advice,
            }
        )  # fmt: skip
    return {"found": found, "problem": problem}
