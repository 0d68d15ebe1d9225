"""TODO adapters/proxy/body."""
