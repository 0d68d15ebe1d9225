"""TODO adapters/proxy/models."""
