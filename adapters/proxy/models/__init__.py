"""Model names: what a client asked for and what serves it.

The `ModelCatalog` holds the `definitions`; the `Resolver` turns a name into a local model or a peer
through aliases, selectors and `profiles`.
"""
