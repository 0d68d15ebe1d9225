"""Attacks on limits (listeners, queues, names, paths, expressions)."""

from __future__ import annotations

from .entry import Attack

ATTACKS: tuple[Attack, ...] = ()
