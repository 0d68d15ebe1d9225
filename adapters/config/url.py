"""Checks of URLs in the configuration."""

from __future__ import annotations

from urllib.parse import urlsplit


def url_problem(text: str) -> str | None:
    """Return what is wrong with *text* as the URL of a server; None if it is valid."""
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        return f"expected a URL such as http://127.0.0.1:8080: {error}"
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        return "expected a URL such as http://127.0.0.1:8080"
    return None
