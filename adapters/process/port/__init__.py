"""TODO adapters/process/port."""
