"""The documents: their fenced blocks, and the commands in blocks and in backticks.

A *shown* item is what a reader may copy: a line of an ``sh`` block, any other block, or a command
in backticks. It is written ``PAGE: LINE``, or ``PAGE: LANGUAGE NUMBER`` for a block.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = {path.name: path.read_text("utf-8") for path in sorted((ROOT / "docs").glob("*.md"))}
DOCUMENTS = {
    str(path.relative_to(ROOT)): path.read_text("utf-8")
    for path in (
        *(ROOT / name for name in ("README.md", "CHANGELOG.md", "benchmarks/README.md")),
        *sorted((ROOT / "docs").glob("*.md")),
    )
}

_FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"`([^`\n]+)`")
_ASSIGNMENTS = r"(?:[A-Z_]+=\S+ )*"

#: Programs whose commands are shown in backticks.
PROGRAMS = (
    "./dev", "/bin/sh", "apt-get", "curl", "docker", "env", "fuser", "hypercorn", "kill", "mv",
    "opencode", "pip", "pipx", "pm2", "podman", "printf", "pytest", "python", "python3", "ray",
    "supervisorctl", "swapchart", "systemctl", "systemd-analyze", "ulimit", "uv", "uvicorn",
)  # fmt: skip
_COMMAND = re.compile(_ASSIGNMENTS + rf"(?:{'|'.join(map(re.escape, PROGRAMS))})(?= |$)")
_OPTION = re.compile(r"--?[a-z][\w-]* \S+")

#: Texts in backticks with a blank that are no commands.
NO_COMMANDS = {
    "a request": re.compile(r"(?:GET|POST|PUT|DELETE) /\S*"),
    "a header or its value": re.compile(
        r"[A-Z][\w-]*: \S.*|Authorization: \w+|Bearer <key>|a=1; token=.*"
    ),
    "a status": re.compile(r"\d{3} [A-Z][\w ]+"),
    "a key of a configuration": re.compile(r"[\w.]+: \S.*"),
    "an expression of a chart": re.compile(
        r"(?!swapchart)[\w().]+ (?:[<>=]+|[-+*]|if|in) .*|min\(.*\)|.* in \(.*\)"
    ),
    "a value": re.compile(r"\{[^}]*\}|\[[^\]]*\]|\([a-z ]+\)"),
    "a piece of source": re.compile(
        r"(?:async )?(?:def|class|import) .*|\w+\(\w+, \w+\)|\w+\(\w+=\.\.\., \w+=\.\.\.\)"
        r"|case \".*\"|_get\(.*|statemachine\.io\.load\(.*|## .*"
    ),
    "a setting of a reverse proxy": re.compile(
        r"(?:flush_interval|location|proxy_(?:buffering|pass|set_header)) \S.*"
    ),
    "output": re.compile(r"evicted for hare|idle for too long|not used"),
    "a part of a command's name": re.compile(
        r"config (?:check|schema)|(?:serve|config check) --[a-z-]+"
    ),
    "a label of a diagram": re.compile(r"/ action|idle_expired \(after 600 s\)|from ready: kill"),
    "a form of a commit's subject": re.compile(r"<package>: .*"),
}


def blocks(text: str, language: str) -> list[str]:
    """Return the fenced blocks of *language*, without the indentation of their fence."""
    return [body for name, body in fenced(text) if name == language]


def fenced(text: str) -> list[tuple[str, str]]:
    """Return (language, body) of each fenced block, without the indentation of its fence."""
    return [
        (name, re.sub(rf"^{indent}", "", body, flags=re.MULTILINE))
        for indent, name, body in _FENCE.findall(text)
    ]


def prose(text: str) -> str:
    """Return *text* without its fenced blocks."""
    return _FENCE.sub("", text)


def in_backticks(text: str) -> list[str]:
    """Return what stands in backticks outside of blocks, as it is read in a table."""
    return [code.replace("\\|", "|") for code in _CODE.findall(prose(text))]


def commands(text: str) -> list[str]:
    """Return the commands of the `sh` blocks of *text*, without comments."""
    lines = "".join(blocks(text, "sh")).replace("\\\n", " ").splitlines()
    return [line for line in (re.sub(r"\s+# .*", "", line).strip() for line in lines) if line]


def is_command(code: str) -> bool:
    """Return True if *code* is a command, or an option with a value.

    Raises:
        ValueError: It has a blank and is of no known kind.
    """
    if not (" " in code or code.startswith("./")):
        return False
    if _COMMAND.match(code) or _OPTION.match(code):
        return True
    if any(shape.fullmatch(code) for shape in NO_COMMANDS.values()):
        return False
    raise ValueError(f"`{code}` is of no known kind: extend PROGRAMS or NO_COMMANDS")


def shown(page: str) -> Iterator[str]:
    """Yield each shown item of *page*, a key of DOCUMENTS."""
    text = DOCUMENTS[page]
    numbers: dict[str, int] = {}
    for language, _ in fenced(text):
        numbers[language] = numbers.get(language, 0) + 1
        if language != "sh":
            yield f"{page}: {language} {numbers[language]}"
    for command in commands(text):
        yield f"{page}: {command}"
    for code in in_backticks(text):
        if is_command(code):
            yield f"{page}: {code}"
