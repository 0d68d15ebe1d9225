"""`swapchart service`: a systemd unit that runs `swapchart serve`.

`unit` makes the text of a unit, `command_line` the words of its command, and `install` checks the
configuration, writes the file and prints the next commands.
"""
