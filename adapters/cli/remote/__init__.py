"""Commands that ask a running proxy, or change what it runs: one module per group."""
