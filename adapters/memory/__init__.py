"""Memory of the machine: readers of pools and of what processes hold, and the meter over them."""

from .meter import Meter

__all__ = ["Meter"]
