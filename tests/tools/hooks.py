"""Hooks in tests: short ways to make them and to look into them."""

from __future__ import annotations

from typing import Any

from swapchart.runtime import Hook, HttpAction, HttpCall, RunAction


def runs(*argv: str, **fields: Any) -> Hook:
    """Return the hook that runs *argv*; *fields* are those of `Hook`."""
    return Hook(action=RunAction(argv=argv), **fields)


def argv_of(hook: Hook | None) -> tuple[str, ...]:
    """Return the command of *hook*, which must run one."""
    assert hook is not None
    assert isinstance(hook.action, RunAction)
    return hook.action.argv


def call_of(hook: Hook) -> HttpCall:
    """Return the request of *hook*, which must make one."""
    assert isinstance(hook.action, HttpAction)
    return hook.action.call
