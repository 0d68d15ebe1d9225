"""The configuration file for models that were found: YAML with comments. Pure."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from ...runtime.memory.sums import size
from .found import Left
from .planning import PORT, PlannedModel, Room

_PLAIN = re.compile(r"[A-Za-z_][\w./+@-]*(?::[\w.+-]+)*")
_NOT_TEXT = frozenset({"null", "true", "false", "yes", "no", "on", "off", "y", "n"})
_UNQUOTED = re.compile(r"[\w@%+=:,./-]+")
_MOST_LEFT = 40

_HEAD = """\
# yaml-language-server: $schema={schema}
#
# Written by `swapchart init`. Edit it freely: nothing writes to it again.
#   swapchart config check {name}     finds mistakes, with their lines
#   swapchart serve --config {name}   starts the proxy on http://127.0.0.1:8080
# All keys: docs/keys.md, or completion in an editor by the schema named above.
"""

_SETTINGS = """
# Which models fit together is worked out from the memory of this machine, and idle ones make room.
memory: auto

# Seconds without a request after which a model is stopped; 0: never.
globalTTL: 0

# A GET starts a model only if a browser opens its page; a dashboard that polls does not.
upstream:
  startOnGet: pages
"""

_KEEP = """
# To keep the conversations of a model of llama-server when it is stopped, add to its cmd
#   --slot-save-path DIRECTORY
# and beside its cmd
#   kv: keep
"""


def configuration(
    models: Sequence[PlannedModel], left: Sequence[Left], room: Room, *, name: str, schema: str
) -> str:
    """Return the configuration of *models*.

    Args:
        models: In the order in which they are written.
        left: What was left out; it is named in comments.
        room: Memory of the machine; it is named in comments.
        name: Name of the file, for the commands in its comments.
        schema: Path of the JSON Schema for editors, relative to the file.
    """
    parts = [_HEAD.format(name=shlex.quote(name), schema=schema)]
    parts.append(f"#\n# Memory for models here: {room_text(room)}.\n")
    parts.append(_SETTINGS)
    parts.append(_KEEP)
    parts.append("\nmodels:\n")
    parts.extend("\n".join(_entry(model)) + "\n" for model in models)
    if left:
        parts.append("\n# Left out:\n")
        parts.extend(f"#   {_one_line(left_text(each))}\n" for each in left[:_MOST_LEFT])
        if len(left) > _MOST_LEFT:
            parts.append(f"#   and {len(left) - _MOST_LEFT} more\n")
    return "".join(parts)


def room_text(room: Room) -> str:
    """Return the memory of a machine in words."""
    sizes = [f"{size(amount)} of {pool}" for pool, amount in room.gpus.items()]
    sizes += [f"{size(room.ram)} of RAM"] if room.ram else []
    return ", ".join(sizes) or "not known"


def left_text(left: Left) -> str:
    """Return what was left out and why, in one line."""
    return f"{left.path}: {left.reason}"


def fit_text(planned: PlannedModel) -> str:
    """Return how much memory a model takes, and whether it fits, in words."""
    if not planned.amounts:
        return "memory not known before its first start"
    amount = " and ".join(
        f"{size(held)} of {pool}" for pool, held in planned.amounts.items() if held
    )
    if planned.fits is False:
        return f"{amount} by estimate: more than this machine has for models"
    return f"{amount} by estimate"


def _entry(planned: PlannedModel) -> Iterator[str]:
    model = planned.model
    yield f"  # {_one_line(fit_text(planned))}"
    if planned.note:
        yield f"  #   {_one_line(planned.note)}"
    if planned.fits is False:
        yield "  #   It may run slowly, partly in main memory, or not start."
    yield f"  {_scalar(model.name)}:"
    yield "    cmd: >-"
    yield from (f"      {line}" for line in _command_lines(planned.argv))
    if model.full_name and model.full_name.lower() != model.name.lower():
        yield f"    aliases: [{_scalar(model.full_name)}]"


def _command_lines(argv: Sequence[str]) -> Iterator[str]:
    """Yield the command in lines: the program, then each option with its values."""
    line: list[str] = []
    for word in argv:
        if word.startswith("--") and line:
            yield " ".join(line)
            line = []
        line.append(_quoted(word))
    yield " ".join(line)


def _quoted(word: str) -> str:
    if word == PORT or _UNQUOTED.fullmatch(word):
        return word
    return shlex.quote(word.replace("${", "$${"))


def _scalar(text: str) -> str:
    """Return *text* as a YAML scalar; in double quotes where it could mean something else."""
    if _PLAIN.fullmatch(text) and text.lower() not in _NOT_TEXT:
        return text
    return json.dumps(text, ensure_ascii=False)


def _one_line(text: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def summary(models: Iterable[PlannedModel], left: Sequence[Left]) -> Iterator[str]:
    """Yield the lines that tell what was found and what was left out."""
    rows = [(each.model.name, fit_text(each), str(each.model.path)) for each in models]
    widths = [max((len(row[column]) for row in rows), default=0) for column in range(2)]
    for name, fit, path in rows:
        yield _one_line(f"  {name:<{widths[0]}}  {fit:<{widths[1]}}  {path}")
    if left:
        yield f"left out: {len(left)}"
        yield from (f"  {_one_line(left_text(each))}" for each in left)


def schema_path(config: Path) -> Path:
    """Return where the JSON Schema for the editor of *config* is written."""
    return config.with_name("swapchart.schema.json")
