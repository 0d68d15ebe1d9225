"""Charts of other tools: readers that make a document, and writers that make theirs of one.

A reader takes text or a class and returns a `Document`; a writer returns text. Both are pure.
"""
