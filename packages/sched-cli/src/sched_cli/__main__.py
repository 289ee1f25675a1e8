"""``python -m sched_cli``."""

from sched_cli.main import main

main()
