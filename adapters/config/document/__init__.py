"""YAML with positions.

`source` reads files and variables, `parse` turns their text into `nodes` that know file, line and
column, `merge` joins several files. Nothing here knows a configuration key.
"""
