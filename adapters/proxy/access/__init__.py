"""TODO adapters/proxy/access."""
