"""What tests share: real child processes, raw HTTP, a real llama-server and a tiny model for it."""
