"""Shared tools of the benchmarks: pinned processes, load, figures, tables."""
