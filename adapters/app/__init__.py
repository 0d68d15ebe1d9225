"""TODO adapters/app."""
