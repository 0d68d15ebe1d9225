"""Saved conversations as values to show: of the slots of a model, and of its library."""
