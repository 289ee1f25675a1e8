"""Print the SQL that makes a schema, or brings it up to date: for those who run it themselves."""

from __future__ import annotations

import argparse
import sys

from sched_sql.postgres.migration import migration_sql


def main() -> None:
    """Print it."""
    parser = argparse.ArgumentParser(prog="python -m sched_sql.postgres", description=__doc__)
    parser.add_argument("--schema", default="sched", help="its name (default: sched)")
    parser.add_argument("--after", type=int, default=0, help="the version that it has")
    options = parser.parse_args()
    sys.stdout.write(migration_sql(options.schema, after=options.after))


if __name__ == "__main__":
    main()
