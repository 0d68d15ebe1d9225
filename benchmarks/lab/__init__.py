"""What the benchmarks share: pinned processes, load, figures, tables."""
