"""Attacks on request bodies (JSON, forms, multipart)."""

from __future__ import annotations

from .entry import Attack

ATTACKS: tuple[Attack, ...] = ()
