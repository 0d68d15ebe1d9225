"""Demo inference server without a model, for demos and tests.

It uses the standard library only and nothing of the proxy, so that it starts as fast as a process
can. `server` runs it, `app` has its endpoints, `engine` generates text in `slots`.
"""
