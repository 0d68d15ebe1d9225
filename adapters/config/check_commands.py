"""Checks of commands: shell syntax in them, and programs and files that are not there."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path, PurePath
from typing import TypeAlias

from ..llama_cpp.launch_args import LaunchLine
from .command_line import literal_words
from .container_engine import engine_problem
from .document.nodes import Scalar
from .routing import NamesLike
from .values import ModelConfig

Place: TypeAlias = tuple[int | str, ...]

_OPERATORS = frozenset(
    ("&&", "||", "|", ";", "&", ">", ">>", "<", "2>", "2>>", "&>", "2>&1", ">/dev/null")
)
_VARIABLE = re.compile(r"\$(?:[A-Z_][A-Z0-9_]*+|\{[A-Z_][A-Z0-9_]*+\}|\()|`")
_FILLED_IN = re.compile(r"\$\{(?:PID|HOST|PORT|NODE|GPUS?)\}")  # when the command runs
_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*+=")
_SHELLS = frozenset(("sh", "bash", "dash", "zsh", "ksh", "fish", "busybox"))
_CURE = "commands run without a shell; write sh -c '...', or a script"


def check_shell_syntax(names: NamesLike) -> None:
    """Warn of words that only a shell understands, in commands that run without one."""
    for model in names.models.values():
        for place, argv in _commands(model):
            if shell_syntax(argv) is None:
                continue
            literal = frozenset[str]()
            if place[-1] == "cmd" and isinstance(names.place(*place)[0], Scalar):
                literal = literal_words(model.cmd)
            if (found := shell_syntax(argv, literal)) is not None:
                names.warning(place, found)


def shell_syntax(argv: Sequence[str], literal: Collection[str] = ()) -> str | None:
    """Return what a shell would be needed for, and what to write instead; None for nothing.

    Args:
        argv: Program and arguments.
        literal: Words in which a shell would not expand anything either.
    """
    if not argv or PurePath(argv[0]).name in _SHELLS:
        return None
    if _ASSIGNMENT.match(argv[0]):
        name = argv[0].partition("=")[0]
        return f"{name}= stands before the program: a variable belongs in `env: [{name}=...]`"
    for word in argv:
        if word in literal:
            continue
        if word in _OPERATORS or (word.endswith(";") and word != ";"):
            return f"{word!r} is passed to the program as a word: {_CURE}"
        if word == "~" or word.startswith("~/"):
            return f"{word!r}: ~ is not expanded; write the whole path, or ${{env.HOME}}"
        if match := _VARIABLE.search(_FILLED_IN.sub("", word)):
            name = match[0].strip("${}")
            cure = f"write ${{env.{name}}}" if name.isidentifier() else _CURE
            return f"{match[0]} is not expanded in {word!r}: {cure}"
    return None


def check_machine(names: NamesLike, environment: Mapping[str, str]) -> None:
    """Warn of programs and model files that this machine does not have.

    Args:
        names: The models, and where they are written.
        environment: Variables of the proxy; PATH is where programs are looked for.
    """
    for model in names.models.values():
        if model.nodes is not None:
            continue
        path, container = environment.get("PATH", os.defpath), model.container
        if container is None:
            path = model.environment.get("PATH", path)
        elif problem := engine_problem(container.engine, environment):
            names.warning(("models", model.id, "container"), problem)
        for place, argv in _commands(model, on_host=True):
            is_program = argv and not _ASSIGNMENT.match(argv[0])
            if is_program and shutil.which(argv[0], path=path) is None:
                names.warning(place, _missing_program(argv[0]))
        line = LaunchLine.parse(model.argv)
        is_here = container is None and line.is_llama_server
        for option, file in line.files() if is_here else ():
            if not Path(file).exists():
                names.warning(("models", model.id, "cmd"), f"{option} {file}: no such file")


def _missing_program(name: str) -> str:
    if "/" not in name:
        return f"the program {name!r} is not in PATH"
    path = Path(name)
    if not path.exists():
        return f"the program {name!r} does not exist"
    kind = "a directory" if path.is_dir() else "not executable; chmod +x makes it so"
    return f"the program {name!r} is {kind}"


def _commands(
    model: ModelConfig, *, on_host: bool = False
) -> Iterator[tuple[Place, Sequence[str]]]:
    """Yield place and words of each command; *on_host* leaves out those that run in a container."""
    place: Place = ("models", model.id)
    if model.container is None:
        yield (*place, "cmd"), model.argv
    elif not on_host:  # the program is in the image
        yield (*place, "container", "args"), ("", *model.argv)
    yield (*place, "cmdStop"), model.stop_argv
    for point, hooks in model.hooks.items():
        for hook in hooks:
            argv = getattr(hook.action, "argv", ())
            if argv and not (on_host and getattr(hook.action, "is_inside", False)):
                yield (*place, point), argv
