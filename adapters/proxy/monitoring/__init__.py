"""TODO adapters/proxy/monitoring."""
