"""The cluster of a configuration: launcher, nodes, and their memory pools."""
