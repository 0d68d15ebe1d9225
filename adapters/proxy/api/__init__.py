"""TODO adapters/proxy/api."""
