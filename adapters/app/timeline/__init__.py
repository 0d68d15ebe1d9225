"""Timeline of the proxy: what is kept for it alone, and where from."""
