"""TODO adapters/proxy/accounting."""
