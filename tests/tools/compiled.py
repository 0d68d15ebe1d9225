"""Whether the package under test is compiled."""

from __future__ import annotations

import inspect

from swapchart.runtime import Supervisor

#: Compiled modules check the types of arguments by themselves, with a `TypeError`.
IS_COMPILED = not inspect.isfunction(Supervisor.get)
