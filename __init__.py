"""Swap between many local inference servers behind one endpoint, by an explicit statechart.

This folder is the package ``swapchart``: ``swapchart.machine`` is ``machine/``, and so on.
"""

__version__ = "0.1.0"
