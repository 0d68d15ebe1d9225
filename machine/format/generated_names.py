"""Names of what short forms stand for: timers, and guards and actions in the place of a name."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from keyword import iskeyword
from typing import Any

from ..document import as_list

_SIGNS = {
    ">=": " ge ", "<=": " le ", "==": " is ", "!=": " is not ", "<": " lt ", ">": " gt ",
    "+": " plus ", "-": " minus ", "*": " times ",
}  # fmt: skip
_SIGN = re.compile(r"[<>=!]=|[<>+*-]")
_COUNTED = re.compile(r"_[0-9]{1,4}$")
_LONGEST = 48


def timer_name(state: str, duration: str) -> str:
    """Return the timer of ``after: {duration: ..}`` in *state*, which is its event too."""
    return f"{state}_after_{re.sub(r'[^0-9A-Za-z]', '_', duration)}"


def guard_name(text: str, taken: Collection[str]) -> str:
    """Return a name for the guard *text*, such as ``amount_lt_1000``, that is none of *taken*."""
    return _free(_slug(_SIGN.sub(lambda sign: _SIGNS[sign[0]], text)), "if", taken)


def is_generated(name: str, text: str) -> bool:
    """Return True if *name* is one that `guard_name` gives to the guard *text*.

    The text alone decides, so that an exported document, which declares the guard, is drawn like
    the one with the short form.
    """
    plain = guard_name(text, ())
    base = name if name in (plain, f"if_{plain}") else _COUNTED.sub("", name)
    return base in (plain, f"if_{plain}")


def action_name(action: Mapping[str, Any], taken: Collection[str]) -> str:
    """Return a name for *action*, such as ``set_amount`` or ``notify_closed``."""
    words: list[str] = []
    for effect in as_list(action.get("do")):
        if isinstance(effect, Mapping):
            words += [str(value) for value in effect.values()]
    if action.get("set"):
        words += ["set", *map(str, action["set"])]
    if action.get("raise"):
        words += ["raise", *map(str, as_list(action["raise"]))]
    return _free(_slug(" ".join(words)), "do", taken)


def _slug(text: str) -> str:
    words = re.sub(r"\W+", "_", text, flags=re.ASCII)
    return re.sub(r"__+", "_", words).strip("_")[:_LONGEST].rstrip("_")


def _free(name: str, prefix: str, taken: Collection[str]) -> str:
    """Return *name*, changed until it is an identifier that is none of *taken*."""
    is_good = name.isidentifier() and "_" in name and not iskeyword(name)
    if not is_good or name in taken or name.startswith(("in_", "was_")):  # data are called so
        name = f"{prefix}_{name}" if name else prefix
    base, number = name, 1
    while name in taken:
        number += 1
        name = f"{base}_{number}"
    return name
