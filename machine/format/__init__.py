"""The format of chart documents: one table of keys, parser, short forms, rules and overlays.

`keys` is the table; `json_schema`, the reference in docs/chart.md and `check_shape` follow from it.
`parse.read` reads a text (`source` knows its lines), checks its shape, expands its short forms
(`expand`), builds the `Document` (`build`), and checks names and states as a whole (`name_rules`,
`structure_rules`). `overlay.merge` changes a document, and `python_types` writes its names for type
checkers. Expressions of guards and assignments are in `expressions`.
"""
