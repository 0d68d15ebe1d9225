"""TODO adapters/http1."""
