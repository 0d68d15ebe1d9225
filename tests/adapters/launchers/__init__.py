"""Launchers: one suite that each kind has to pass."""
