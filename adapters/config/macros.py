"""Macros: ``${name}`` in texts, replaced before a command is split, as in llama-swap.

The value of a macro takes part in the splitting: a value with a space becomes two arguments unless
its place in the command is quoted. Existing configurations rely on it; write ``cmd`` as a list to
get one argument whatever the value. Nothing from a request ever gets here, and no shell sees the
result unless a hook asks for one.

Source: llama-swap's behavior. Deviations: ``$${`` stands for a literal ``${``, floats keep their
author's text, and all problems are reported in one run.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Container, Iterable
from itertools import chain, islice
from operator import itemgetter

from ...machine.errors import SwapchartError
from .document.nodes import Mapping, Node, Scalar, Sequence, mapping_at, scalar_at, sequence_at
from .document.scalars import Value, as_text, is_timestamp
from .document.source import shown
from .problem_collector import ProblemCollector

#: Reserved names; their values come from the model.
RESERVED = ("PID", "PORT", "MODEL_ID")
MAX_NAME = 63
#: Maximum length of a text that macros produce, and of all such texts of one load; characters.
MAX_TEXT = 1 << 20
MAX_TOTAL = 64 << 20

_MOST_COMPARED = 200  # names that are compared with an unknown one; 5 us each
_SIMILARITY = 0.75

REFERENCE = re.compile(r"\$\{([a-zA-Z0-9_-]+)\}")
_NAME = re.compile(r"[a-zA-Z0-9_-]+")


def read_macros(node: Node | None, path: str, collector: ProblemCollector) -> dict[str, Scalar]:
    """Return the macros that *node* declares, in order, without invalid ones."""
    if node is None or (isinstance(node, Scalar) and node.value is None):
        return {}
    if not isinstance(node, Mapping):
        collector.error(node, path, "macros must be a mapping of names to values")
        return {}
    macros = {}
    for name, value in node.items.items():
        if (problem := _problem(name, value)) is not None:
            source, line, column = node.places[name]
            collector.error_at(source.name, f"{path}.{name}", line, column, problem)
        elif isinstance(value, Scalar):
            macros[name] = value
    return macros


def _problem(name: str, value: Node) -> str | None:
    if len(name.encode()) > MAX_NAME:
        return f"macro name '{name}' exceeds maximum length of {MAX_NAME} characters"
    if not _NAME.fullmatch(name):
        return f"macro name '{name}' contains invalid characters: use letters, digits, _ and -"
    if isinstance(value, Scalar) and f"${{{name}}}" in str(value.value):
        return f"macro '{name}' contains self-reference"
    if (kind := _kind(value)) not in ("text", "number"):
        return f"macro '{name}' has invalid type {kind}, must be a scalar type (text, number, bool)"
    if name in RESERVED:
        return f"macro name '{name}' is reserved"
    return None


def _kind(node: Node) -> str:
    if isinstance(node, Mapping):
        return "mapping"
    if isinstance(node, Sequence):
        return "list"
    if node.value is None:
        return "null"
    if isinstance(node.value, str):
        return "timestamp" if node.plain and is_timestamp(node.text) else "text"
    return "number"


class TooMuchTextError(SwapchartError):
    """The texts that macros produce exceed a limit, which the message names."""


class Scope:
    """Macros that are valid in one part of the document, in order of declaration.

    A macro may use macros declared before it and no others: they are replaced from the last to the
    first, each once.

    Args:
        macros: Name -> value, in order. Names that are also in *shared* keep their position there;
            of the others, ``MODEL_ID`` comes before all of *shared*, and the rest after them.
        spent: Number of characters that this load has produced so far; shared by all scopes.
        shared: Scope of the document, for the scope of a model. It is not copied: a thousand models
            and a thousand macros would make a million entries.

    Attributes:
        failed: Scalars that would exceed a limit and are now empty, each with the reason.
    """

    def __init__(
        self, macros: dict[str, Scalar], spent: list[int], shared: Scope | None = None
    ) -> None:
        self.failed: list[tuple[Scalar, str]] = []
        self._spent = spent
        self._shared: dict[str, tuple[int, Scalar]] = {} if shared is None else shared._own
        self._own: dict[str, tuple[int, Scalar]] = {}
        for place, (name, value) in enumerate(macros.items(), len(self._shared)):
            if name in self._shared:
                self._own[name] = (self._shared[name][0], value)
            else:
                self._own[name] = (-1 if name == "MODEL_ID" else place, value)

    def declares(self, name: str) -> bool:
        """Return True if there is a macro *name*."""
        return name in self._own or name in self._shared

    def similar(self, name: str) -> str | None:
        """Return the macro, reserved ones included, whose name is most similar, or None."""
        names = [*RESERVED, *islice(chain(self._own, self._shared), _MOST_COMPARED)]
        by_word = {known.lower().replace("-", "_"): known for known in names}
        word = name.lower().replace("-", "_")
        import difflib  # slow to import, and needed for errors only

        close = difflib.get_close_matches(word, by_word, n=1, cutoff=_SIMILARITY)
        return by_word[close[0]] if close else None

    def expand(self, node: Node) -> Node:
        """Return *node* with every reference in its texts replaced; keys are not changed."""
        if isinstance(node, Scalar):
            return self._expand_scalar(node)
        if isinstance(node, Sequence):
            items = [self.expand(item) for item in node.items]
            if all(new is old for new, old in zip(items, node.items, strict=True)):
                return node
            return sequence_at(node, items)
        changed = {key: self.expand(item) for key, item in node.items.items()}
        if all(changed[key] is item for key, item in node.items.items()):
            return node
        return mapping_at(node, changed)

    def expand_text(self, text: str) -> str:
        """Return *text* with every reference replaced, as a text.

        Raises:
            TooMuchTextError: The result would exceed a limit.
        """
        value, literal = self._follow(text)
        return as_text(value, literal)

    def _expand_scalar(self, node: Scalar) -> Scalar:
        text = node.value
        if not isinstance(text, str) or "${" not in text:
            return node
        try:
            value, literal = self._follow(text)
        except TooMuchTextError as error:
            empty = scalar_at(node, "")
            self.failed.append((empty, str(error)))
            return empty
        return node if value is text else scalar_at(node, value, literal)

    def _follow(self, text: str) -> tuple[Value, str]:
        """Return the value of *text*, and how it is written if it is not a text."""
        before = sys.maxsize
        while "${" in text:
            found = [
                (*place, name)
                for name in dict.fromkeys(REFERENCE.findall(text))
                if (place := self._own.get(name) or self._shared.get(name)) and place[0] < before
            ]
            if not found:
                break
            before, macro, name = max(found, key=itemgetter(0))
            reference = f"${{{name}}}"
            if text == reference:
                if not isinstance(macro.value, str):
                    return macro.value, macro.text
                text = macro.value
            else:
                text = self._replace(text, reference, as_text(macro.value, macro.text))
        return text, text

    def _replace(self, text: str, reference: str, by: str) -> str:
        size = len(text) + text.count(reference) * (len(by) - len(reference))
        self._spent[0] += size
        if size > MAX_TEXT:
            raise TooMuchTextError(f"macros make a text longer than {MAX_TEXT} characters")
        if self._spent[0] > MAX_TOTAL:
            raise TooMuchTextError(f"macros make more than {MAX_TOTAL} characters of text")
        return text.replace(reference, by)


def unresolved(text: str) -> Iterable[str]:
    """Return the names that *text* still refers to, once each."""
    return dict.fromkeys(REFERENCE.findall(text)) if "${" in text else ()


def explain(
    name: str, scope: Scope, variables: Container[str] = (), *, is_hinted: bool = False
) -> str:
    """Return the reason why ``${name}`` could not be replaced.

    Args:
        name: Name in the reference.
        scope: Macros that are valid there.
        variables: Names of environment variables.
        is_hinted: Whether to look for a similar name, which takes up to 1 ms.
    """
    if name == "PORT":
        return "macro '${PORT}' has no value here: only models with ${PORT} in cmd have one"
    if name == "PID":
        return "macro '${PID}' is known only while the process runs: use it in cmdStop and hooks"
    if name in ("GPU", "GPUS") and not scope.declares(name):
        return f"macro '${{{name}}}' is known only at a start: use it in cmd, with `memory:`"
    if name == "MODEL_ID":
        return "macro '${MODEL_ID}' has no value here: it is known inside a model only"
    why = f"unknown macro '${{{name}}}'"
    if scope.declares(name):
        return f"{why}: it is declared after the macro that uses it; move it before"
    if name in variables:
        why += f"; did you mean '${{env.{name}}}'?"
    elif is_hinted and (similar := scope.similar(name)) is not None:
        why += f"; did you mean '${{{similar}}}'?"
    return f"{why}; for a literal text write '$${{{name}}}'"


def display(node: Node) -> str:
    """Return *node* as a problem shows it: shortened, without values of the environment."""
    if isinstance(node, Mapping):
        return "a mapping"
    if isinstance(node, Sequence):
        return "a list"
    if node.value is None:
        return "nothing"
    text = re.sub(r"//[^/@\s]*@", "//***@", shown(node.text))
    text = text if len(text) <= 60 else f"{text[:57]}..."
    return repr(text) if isinstance(node.value, str) else text
