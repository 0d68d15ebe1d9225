"""Texts of 403 responses for an API key that lacks a right; each names what to configure. Pure."""

from __future__ import annotations

from collections.abc import Iterable

_PAGE = "docs/security.md, Keys"
_ORDER = ("infer", "admin", "metrics")


def missing_scope(needed: Iterable[str], scopes: Iterable[str]) -> str:
    """Return the error for a key that has *scopes* and none of those *needed*, in their order."""
    names = list(needed)
    after = {names[0], *scopes}
    value = ", ".join(scope for scope in _ORDER if scope in after)
    return (
        f"forbidden: this API key has no {' or '.join(names)} scope; to grant it, set "
        f"scopes: [{value}] at the key in `apiKeys` ({_PAGE})"
    )


def missing_model(name: str) -> str:
    """Return the error for a key whose `models` do not match *name*, which is quoted."""
    return (
        f"forbidden: this API key is not good for {name}; to grant it, add the name to `models` "
        f"at the key in `apiKeys` ({_PAGE})"
    )
