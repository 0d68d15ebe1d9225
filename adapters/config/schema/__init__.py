"""Configuration keys as authors write them.

`fields` holds the types of values, `model` the keys of one model, `document` those of the whole
file; the JSON Schema and the "did you mean" of errors come from them.
"""
