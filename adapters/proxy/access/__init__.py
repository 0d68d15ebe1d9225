"""Admission control: which requests are admitted, and what they may see.

`AdmissionControl` decides by the headers alone: `ApiKeys` finds the key and its rights, `HostCheck`
and `OriginCheck` check Host and Origin. `HeaderCache` keeps decisions until the configuration
changes; a `View` holds the models that a key may see.
"""
