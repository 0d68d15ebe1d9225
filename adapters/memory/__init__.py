"""Memory of the machine: readers of pools and of what processes hold, and the meter over them."""

from .command import CommandPool
from .meter import Meter

__all__ = ["CommandPool", "Meter"]
