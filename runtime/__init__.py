"""Drives charts: one writer per instance; timers, hooks, supervision, scheduling."""
