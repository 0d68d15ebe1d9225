"""ASGI server around the application.

`run` owns signals and the order of a shutdown; `backends` starts hypercorn or uvicorn with our
HTTP/1.1 layer inside; `listen` binds addresses; `systemd` reports readiness and the watchdog.
`ServeOptions` has the options of the command line. This room does not know models.
"""
