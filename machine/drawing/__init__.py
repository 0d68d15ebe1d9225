"""Diagrams of charts as text: DOT, Mermaid and a table.

`diagram_model` turns a document into nodes and edges; each other module writes them in one format.
Nothing here runs a chart, and nothing here lays a diagram out.
"""
