"""Parts of the composition root for clients of Ollama."""
