"""TODO adapters/proxy/forwarding."""
