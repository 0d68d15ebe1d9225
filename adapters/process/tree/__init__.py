"""TODO adapters/process/tree."""
