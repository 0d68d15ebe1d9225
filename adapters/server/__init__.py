"""TODO adapters/server."""
