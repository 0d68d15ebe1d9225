"""Local processes: launch, watch, probe and end them.

A `LocalLauncher` starts a command as the leader of its own session and returns a
`LocalProcess`: its output, its exit, a probe of its port, and a way to end its whole tree.
`tree` finds and ends what descends from it, `port` decides whether a listener is its own, and
`guard` keeps one process that ends every tree if this one is killed. Reads ``/proc``; knows
nothing of models or requests.
"""

from .launcher import LocalLauncher
from .local_process import LocalProcess

__all__ = ["LocalLauncher", "LocalProcess"]
