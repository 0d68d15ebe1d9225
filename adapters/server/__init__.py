"""An ASGI server around the application.

`run` owns signals and the order of a shutdown; `backends` starts hypercorn or uvicorn with our
HTTP/1.1 layer inside; `listen` binds addresses; `systemd` reports readiness and the watchdog.
`ServeOptions` are what the command line decides. Knows nothing of models.
"""
