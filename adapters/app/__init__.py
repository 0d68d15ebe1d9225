"""Composition root: a configuration becomes a supervisor and a proxy.

`Application` is the ASGI application with its lifespan. `service_setup`, `kv_setup`, `proxy_setup`
and `chart_setup` translate sections of the configuration; `live_config` is the one in force,
`config_files` notices changes, `reload_plan` compares and `reloader` applies one reload at a time.
"""
