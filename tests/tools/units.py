"""Reader of systemd units, for those that this project prints."""

from __future__ import annotations

import shlex


def settings(text: str) -> dict[str, str]:
    """Return the settings of a unit; none may occur twice."""
    pairs = [line.partition("=")[::2] for line in text.splitlines() if "=" in line]
    assert len(dict(pairs)) == len(pairs)
    return dict(pairs)


def words_of(value: str) -> list[str]:
    """Return the words of ExecStart= or Environment=, as systemd.syntax(7) splits them."""
    return [word.replace("$$", "$").replace("%%", "%") for word in shlex.split(value)]
