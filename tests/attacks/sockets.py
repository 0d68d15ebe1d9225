"""Attacks on websockets."""

from __future__ import annotations

from .entry import Attack

ATTACKS: tuple[Attack, ...] = ()
