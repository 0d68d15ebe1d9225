"""TODO adapters/config/document."""
