"""Facts about llama.cpp that several rooms need: GGUF headers and server arguments."""
