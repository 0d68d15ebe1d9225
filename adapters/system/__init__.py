"""TODO adapters/system."""
