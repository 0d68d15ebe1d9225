"""Attacks on credentials, scopes, Host and Origin."""

from __future__ import annotations

from .entry import Attack

ATTACKS: tuple[Attack, ...] = ()
