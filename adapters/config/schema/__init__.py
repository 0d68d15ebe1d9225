"""TODO adapters/config/schema."""
