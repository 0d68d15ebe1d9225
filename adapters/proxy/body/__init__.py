"""Request bodies: reading them, finding the model in them, and rewriting them.

Everything but the `Spool`, which stores the beginning of a form on disk, is pure. JSON is scanned
in bounded steps (`json_scan`), which `Turns` interleaves with other work of the event loop. `Edits`
are the changes that a model's filters make; a `MultipartScanner` finds the model in a form. The
`BodyBudget` limits the memory of all bodies together.
"""
