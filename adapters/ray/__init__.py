"""Processes on the nodes of a Ray cluster; needs the extra ``ray``, which the sidecar imports.

The proxy has a `RayLauncher`. It runs the sidecar (``sidecar``), a driver of Ray in a process of
its own, and exchanges messages with it (``connection``, ``messages``). The sidecar has one
connection (``agent_link``) with the agent of each node (``node``), which starts and watches
processes there.
"""
