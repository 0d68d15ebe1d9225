"""A chart as a Markdown table."""

from __future__ import annotations

import re

from ..document import Document, as_list, split_words
from .diagram_model import action_names, guard_text

#: Signs that Markdown takes for markup; names have underscores inside of words only.
_MARKUP = re.compile(r"[\\|*<>&`~\[\]]|(?<![0-9A-Za-z])_|_(?![0-9A-Za-z])")


def to_table(document: Document) -> str:
    """Write every entry, exit and transition of *document* as one Markdown table."""
    rows = [("State", "Event", "Guard", "Target", "Actions"), ("---",) * 5]
    for name, definition, above in document.states():
        path = ".".join((*above, name))
        for key in ("enter", "exit"):
            actions = document.noted(map(str, as_list(definition.get(key))))
            if actions:
                word = "entry" if key == "enter" else "exit"
                rows.append((path, f"*{word}*", "", "", ", ".join(actions)))
        for item in definition.get("transitions") or ():
            event = ", ".join(split_words(item.get("event"))) or "*at once*"
            target = ", ".join(split_words(item.get("target"))) or "*stays*"
            if item.get("internal") and item.get("target"):
                target += " (internal)"
            actions = document.noted(action_names(item))
            rows.append(
                (path, event, _escaped(guard_text(document, item)), target, ", ".join(actions))
            )
        for history, body in (definition.get("history") or {}).items():
            for item in (body or {}).get("transitions") or ():
                target = ", ".join(split_words(item.get("target")))
                rows.append(
                    (f"{path}.{history}", "*by default*", "", target, ", ".join(action_names(item)))
                )
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _escaped(text: str) -> str:
    return _MARKUP.sub(r"\\\g<0>", text)
