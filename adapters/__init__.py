"""The outside world: processes, HTTP, configuration files, the command line."""
