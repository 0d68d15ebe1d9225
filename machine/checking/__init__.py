"""Checker of charts: exploration of every situation, promises, findings and mutants.

`checker.check` explores a compiled document (`explore`) and judges every step (`checked_step`,
`promises`) and the whole graph (`graph`). `mutants` measures how strong a chart's promises are.
"""
