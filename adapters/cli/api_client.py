"""Asks a running proxy, for commands; what goes wrong is said in one line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import httpx

from ...runtime import SwapchartError

_LIMIT_S = 10.0


class AskError(SwapchartError):
    """The proxy could not be asked, or refused; the text says which proxy and why."""


def ask(
    url: str, path: str, field: str, *, key: str | None, params: Mapping[str, str] | None = None
) -> Any:
    """GET *path* of the proxy at *url*; returns *field* of the object that it answers.

    Raises:
        AskError: There is no such answer.
    """
    headers = {"authorization": f"Bearer {key}"} if key else {}
    try:
        answer = httpx.get(
            url.rstrip("/") + path, params=params, headers=headers, trust_env=False,
            timeout=_LIMIT_S,
        )  # fmt: skip
    except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:
        raise AskError(f"no answer from {url}: {error}") from error
    try:
        found = answer.json()
    except ValueError:
        found = None
    if answer.status_code == 200 and isinstance(found, dict) and field in found:
        return found[field]
    text = answer.text.strip()
    if isinstance(found, dict) and isinstance(found.get("error"), dict):
        text = str(found["error"].get("message", text))
    if answer.status_code == 200:
        raise AskError(f"{url} is not a swapchart: it answers {text[:200]!r}")
    raise AskError(f"{url} answers {answer.status_code}: {text[:2000]}")
