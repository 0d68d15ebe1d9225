"""The format of chart documents: parser, rules, expressions, limits and overlays.

`parse.read` turns YAML or JSON into a `Document`, which `name_rules` checks as a whole;
`overlay.merge` changes one. Expressions of guards and assignments are in `expressions`.
"""
