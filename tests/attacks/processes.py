"""Attacks on processes of models."""

from __future__ import annotations

from .entry import Attack

ATTACKS: tuple[Attack, ...] = ()
