"""The pure statechart: no clock, no thread, no process in here."""
