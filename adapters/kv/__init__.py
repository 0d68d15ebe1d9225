"""KV caches that survive a swap: slots of llama.cpp servers are saved before a stop and restored.

`KvManager` is the entry point for a composition root; it holds one `ModelCache` for each model.
A `Save` and a `Restore` are one hook run each; `SlotClient` talks to the server, and `ModelStore`
holds the files with their manifest. A `Fingerprint` decides which server may get a saved slot.
"""
