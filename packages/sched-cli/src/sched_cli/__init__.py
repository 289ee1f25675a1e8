"""The command line of sched-core."""
