"""HTTP client of the commands that query a running proxy; each failure is one line of text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import httpx

from ...runtime import SwapchartError

_LIMIT_S = 10.0


class ApiError(SwapchartError):
    """The request failed or was rejected; the text says which proxy and why."""


def get_field(
    url: str, path: str, field: str, *, key: str | None, params: Mapping[str, str] | None = None
) -> Any:
    """GET *path* from the proxy at *url* and return *field* of the JSON object in the response.

    Raises:
        ApiError: There is no such response.
    """
    return get_object(url, path, field, key=key, params=params)[field]


def get_object(
    url: str, path: str, field: str, *, key: str | None, params: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """GET *path* from the proxy at *url* and return the JSON object, which must have *field*.

    Raises:
        ApiError: There is no such response.
    """
    return _object("GET", url, path, field, key, params=params)


def post_object(
    url: str, path: str, field: str, *, key: str | None, value: Mapping[str, Any]
) -> dict[str, Any]:
    """POST *value* to *path* of the proxy and return the JSON object, which must have *field*.

    Raises:
        ApiError: There is no such response.
    """
    return _object("POST", url, path, field, key, value=value)


def _object(
    method: str, url: str, path: str, field: str, key: str | None, *,
    params: Mapping[str, str] | None = None, value: Mapping[str, Any] | None = None,
) -> dict[str, Any]:  # fmt: skip
    headers = {"authorization": f"Bearer {key}"} if key else {}
    try:
        answer = httpx.request(
            method, url.rstrip("/") + path, params=params, headers=headers, json=value,
            trust_env=False, timeout=_LIMIT_S,
        )  # fmt: skip
    except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:
        raise ApiError(f"no response from {url}: {error}") from error
    try:
        found = answer.json()
    except ValueError:
        found = None
    if answer.status_code == 200 and isinstance(found, dict) and field in found:
        return found
    text = answer.text.strip()
    if isinstance(found, dict) and isinstance(found.get("error"), dict):
        text = str(found["error"].get("message", text))
    if answer.status_code == 200:
        raise ApiError(f"{url} is not a swapchart; it responded with {text[:200]!r}")
    raise ApiError(f"{url} responded with {answer.status_code}: {text[:2000]}")
