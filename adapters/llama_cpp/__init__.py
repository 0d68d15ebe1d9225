"""TODO adapters/llama_cpp."""
