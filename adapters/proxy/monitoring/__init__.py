"""Monitoring of the host and of the event loop.

`HostSampler` takes a `Sample` (CPU, memory, network, and each `Gpu`) at a time; `Samples` keeps
those of the last hour. `HardwareProbe` describes the host once. `LoopWatch` measures the lag of the
event loop.
"""
