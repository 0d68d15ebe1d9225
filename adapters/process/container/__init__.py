"""Containers: models that run as containers of Podman or Docker, by the engine's command line.

A `ContainerLauncher` creates a container for each start, runs a client that stays attached to it,
and returns a `ContainerProcess`. `arguments` makes the command lines and `inspection` reads what
the engine prints; both are pure. A container is ours by its labels and never by its name alone.
"""

from .kept import KeptContainer
from .launcher import ContainerLauncher
from .process import ContainerProcess

__all__ = ["ContainerLauncher", "ContainerProcess", "KeptContainer"]
