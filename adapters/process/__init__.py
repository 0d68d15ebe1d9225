"""Local processes: launch, watch, probe and terminate them.

A `LocalLauncher` starts a command as the leader of its own session and returns a
`LocalProcess`, which gives its output, its exit status, a probe of its port, and a way to terminate
its whole process tree. `tree` finds and terminates the descendants, `port` decides whether a
listener belongs to the tree, and `guard` keeps one process that kills every tree if the proxy is
killed. An `ExternalLauncher` also watches servers that run outside of any tree. The package reads
``/proc`` and knows nothing of models or requests.
"""

from .external import ExternalLauncher
from .launcher import LocalLauncher
from .local_process import LocalProcess

__all__ = ["ExternalLauncher", "LocalLauncher", "LocalProcess"]
