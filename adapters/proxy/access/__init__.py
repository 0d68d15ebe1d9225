"""Admission: may this request in?

`AdmissionControl` decides from headers alone: `api_keys` finds the key and its rights, `origins`
judges Host and Origin. `header_cache` keeps decisions until the configuration changes;
`visible_models` filters what a key for some models may see.
"""
