"""Process tree of one run: every process that descends from the launched command.

`descendants` finds them by session, group, environment, `tag`, parents and `cgroup`; `adoption`
assigns those that the subreaper adopted; `termination` terminates them.
"""
