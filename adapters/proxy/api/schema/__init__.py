"""Bodies of our own API as typed structs, from which the OpenAPI document is generated.

A `Body` is the whole JSON body of a response, a `Part` is an object inside one. A field that may be
absent has the value ``UNSET``; a field that is always there and may be unknown is null. Structs
are made by msgspec, so no module of this folder can be compiled.
"""
