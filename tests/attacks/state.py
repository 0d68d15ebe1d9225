"""Attacks on stored state, logs and background tasks."""

from __future__ import annotations

from .entry import Attack

ATTACKS: tuple[Attack, ...] = ()
