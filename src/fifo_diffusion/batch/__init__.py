"""Many videos from one list: on this machine's devices, or on those of a Ray cluster.

`jobs` is the list, `work` one job brought to its end, `results` what came of each.  `driver` deals jobs to a `pool` of
workers and hears what they say: `local` has processes on this machine, `cluster` tasks on Ray's nodes.  `table` shows
all of it.

Loads neither torch nor Ray before a batch is run.
"""
