"""Extras of pyproject.toml, and the message about a package that none of the installed ones has."""

from __future__ import annotations

from collections.abc import Mapping

#: Package that swapchart may need -> extra that installs it.
EXTRAS: Mapping[str, str] = {
    "hypercorn": "proxy",
    "httpx": "proxy",
    "httptools": "proxy",
    "msgspec": "proxy",
    "prometheus_client": "proxy",
    "wsproto": "proxy",
    "uvicorn": "uvicorn",
    "opentelemetry": "otel",
    "rich": "cli",
    "shtab": "cli",
}


def missing_package(error: ModuleNotFoundError, what: str) -> str | None:
    """Return the message about the package of *error*; None means that no extra installs it.

    Args:
        error: Error of an import.
        what: Subject of the message, such as ``this command``.
    """
    if (extra := EXTRAS.get((error.name or "").partition(".")[0])) is None:
        return None
    return (
        f"{what} needs the Python package {error.name}, which is not installed; install "
        f"swapchart with the extra `{extra}`, in a clone: pip install '.[{extra}]'"
    )
