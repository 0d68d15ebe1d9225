"""Timeline: which model was resident when, what each request waited for, what a swap ran.

`routes` has the handlers. `lanes` makes the intervals and swaps from transitions; it is pure.
"""
