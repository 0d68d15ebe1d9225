"""Checker of charts: exploration of every situation, promises, findings and mutants.

`checker.check` explores a compiled document (`explore`) and judges every step (`checked_step`,
`promises`) and the whole graph (`graph`). `marks` and `conflicts` find what is never taken or taken
in vain, `cures` groups the findings and says what to write instead, and `report_formats` writes
them as JSON and SARIF. `mutants` measures how strong a chart's promises are.
"""
